"""What ``mkdocs build`` does beside reading files: the reference pages, and their place in the navigation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from docs import build_reference


def on_config(config: Any) -> Any:
    """The reference stands behind the hand-written pages."""
    reference: list[dict[str, Any]] = [{"Overview": "reference/index.md"}]
    for group in build_reference.groups():
        pages = [{page.title: f"reference/{page.path}"} for page in (group.overview, *group.members)]
        reference.append({group.title: pages if group.members else f"reference/{group.overview.path}"})
    config.nav.append({"Reference": reference})
    return config


def on_files(files: Files, config: Any) -> Files:
    """The pages exist in memory only."""
    for page in build_reference.pages():
        files.append(File.generated(config, f"reference/{page.path}", content=page.text))
    return files
