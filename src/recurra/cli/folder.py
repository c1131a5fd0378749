"""The folder of a run: may it be written, and what becomes of a run that stands in it?"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..core.checks import sentence

CONFIG, CHECKPOINTS, COMMAND = "config.json", "checkpoints", "command.json"
STOPPED = "stopped"  # the model as it was when Ctrl-C ended its training
NAMES = (
    *(CONFIG, COMMAND, CHECKPOINTS, STOPPED, "model.safetensors", "metrics.csv", "events", "members"),
    *("samples.txt", "evaluation.json", "report.html", "tokens.npy", "validation-tokens.npy"),
)
"""All that a run writes into its folder."""
ASIDE = ".replaced"


def check_free(folder: Path, overwrite: bool) -> None:
    """Raise unless a model may be saved in ``folder``: new, empty, or an older run that may go.

    Raises:
        ValueError: something else is there, or nothing may be written there.
    """
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if nearest.is_dir() and not os.access(nearest, os.W_OK):
        raise ValueError(sentence("recurra", "--out", "a folder that can be written", str(folder)))
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(sentence("recurra", "--out", "a folder", f"{folder}, a file"))
    names = {item.name for item in folder.iterdir()}
    if not names - {COMMAND, ASIDE}:  # left by a run that did not begin
        return
    if CONFIG not in names and not names <= {*NAMES, ASIDE}:
        got = f"{folder}, which holds other files"
        raise ValueError(sentence("recurra", "--out", "a new folder or that of a saved model", got))
    if overwrite:
        return
    if CONFIG not in names:
        got = f"{folder}, which holds a run that did not begin"
        raise ValueError(sentence("recurra", "--out", "a new folder", got, "Choose another, or add --overwrite."))
    if CHECKPOINTS in names or "members" in names:
        hint = "Go on with it by --resume, choose another, or add --overwrite."
        raise ValueError(sentence("recurra", "--out", "a new folder", f"{folder}, which holds an unfinished run", hint))
    got = f"{folder}, which holds a model"
    raise ValueError(sentence("recurra", "--out", "a new folder", got, "Choose another, or add --overwrite."))


def check_run(folder: Path) -> None:
    """Raise unless there is a run to go on with.

    Raises:
        ValueError: there is none.
    """
    if (folder / CONFIG).exists():
        return
    got = "one without a run" if folder.is_dir() else "a file" if folder.exists() else "nothing there"
    raise ValueError(sentence("recurra", "--resume", f"given with the folder of an unfinished run ({folder})", got))


class Replaced:
    """An older run, out of the way of a new one, and thrown away only when that has begun.

    Args:
        folder: of both.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.aside = folder, folder / ASIDE

    def put_aside(self) -> None:
        """Make room for the new run."""
        found = [name for name in NAMES if (self.folder / name).exists()]
        if found:
            self.aside.mkdir(exist_ok=True)
        for name in found:
            (self.folder / name).rename(self.aside / name)

    def drop(self) -> None:
        """The new run has begun."""
        shutil.rmtree(self.aside, ignore_errors=True)

    def bring_back(self) -> None:
        """The new run did not begin."""
        if not self.aside.is_dir():
            return
        for name in NAMES:
            new = self.folder / name
            if new.is_dir():
                shutil.rmtree(new)
            else:
                new.unlink(missing_ok=True)
            if (self.aside / name).exists():
                (self.aside / name).rename(new)
        self.aside.rmdir()


def tidy(folder: Path) -> None:
    """Bring back an older run that a killed command had put aside for a run that did not begin."""
    old = Replaced(folder)
    if (folder / CONFIG).exists():
        old.drop()
    else:
        old.bring_back()
