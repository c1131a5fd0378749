"""From the folder of a run to its page."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.checks import sentence
from ..training.files import write_atomically

CONFIG, EVALUATION, REPORT = "config.json", "evaluation.json", "report.html"
SHARED = {"page", "parts", "write"}


def write_evaluation(folder: str | os.PathLike[str], found: Mapping[str, Any]) -> None:
    """Put what was found out about a model beside it, as ``evaluation.json``.

    Args:
        folder: of the saved model.
        found: JSON values; numbers that are not finite become null.
    """
    text = json.dumps(finite_values(found), indent=1, allow_nan=False) + "\n"
    write_atomically(Path(folder, EVALUATION), text)


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` from ``config.json`` and ``evaluation.json``; returns its path.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: one of them is damaged, or no page is known for the model's kind.
    """
    folder = Path(folder)
    config, found = _read(folder, CONFIG), _read(folder, EVALUATION)
    kind = config.get("kind")
    known = sorted({module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])} - SHARED)
    if kind not in known:
        raise ValueError(
            sentence("recurra", f"the kind in {folder / CONFIG}", f"one of {', '.join(known)}", repr(kind))
        )
    module = importlib.import_module(f"{__package__}.{kind}")
    try:
        html = module.build(config, found).html()
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        got = f"one that does not fit ({type(error).__name__}: {error})"
        raise ValueError(
            sentence("recurra", str(folder / EVALUATION), "written by this version of recurra", got)
        ) from None
    write_atomically(folder / REPORT, html)
    return folder / REPORT


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        want = f"the folder of a trained model with {name}"
        raise FileNotFoundError(
            sentence("recurra", str(folder), want, "one without it" if folder.is_dir() else "nothing there")
        ) from None
    except NotADirectoryError:
        raise ValueError(sentence("recurra", str(folder), "the folder of a trained model", "a file")) from None
    except (ValueError, RecursionError):
        raise ValueError(sentence("recurra", str(path), "a JSON file", "a damaged one")) from None
    if not isinstance(data, dict):
        raise ValueError(sentence("recurra", str(path), "a JSON object", type(data).__name__))
    return data


def finite_values(value: Any) -> Any:
    """The same, with None for numbers that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(k): finite_values(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite_values(v) for v in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if abs(value) <= 1.7e308 else None
    return value
