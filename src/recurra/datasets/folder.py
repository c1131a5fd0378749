"""The folder with files of data: what the environment variable RECURRA_DATA names."""

from __future__ import annotations

import os
from pathlib import Path

from ..core.checks import sentence


def data_folder(name: str, where: str = "datasets") -> Path:
    """A folder below the one that RECURRA_DATA names.

    Args:
        name: for example "mnist".
        where: who asks, for the message.

    Raises:
        FileNotFoundError: the variable is not set, or there is no such folder.
    """
    root = os.environ.get("RECURRA_DATA")
    if not root:
        hint = f"Set it to the folder that holds {name}/."
        raise FileNotFoundError(sentence(where, "the environment variable RECURRA_DATA", "set", "nothing", hint))
    folder = Path(root) / name
    if not folder.is_dir():
        hint = "RECURRA_DATA names the folder above it."
        raise FileNotFoundError(sentence(where, f"the folder {name}", "below RECURRA_DATA", f"no {folder}", hint))
    return folder
