"""What a user hands to a command: files and durations."""

from __future__ import annotations

import codecs
import math
import re
from pathlib import Path

from ..core.checks import sentence

_UNITS = {"": 1.0, "m": 1.0, "min": 1.0, "s": 1 / 60, "sec": 1 / 60, "h": 60.0}


def check_text_file(path: Path) -> None:
    """Raise unless it may be a text in UTF-8.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: a folder, or UTF-16.
    """
    if not path.exists():
        raise FileNotFoundError(sentence("recurra", str(path), "a text file", "nothing there"))
    if path.is_dir():
        raise ValueError(sentence("recurra", str(path), "a text file", "a folder"))
    with open(path, "rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise ValueError(sentence("recurra", str(path), "a text in UTF-8", "UTF-16", _convert("UTF-16")))


def read_text(path: Path, *, min_chars: int = 1) -> str:
    """A UTF-8 text; ``\\r\\n`` becomes ``\\n``, a mark at the beginning is dropped.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: no text in UTF-8, or too little of it.
    """
    check_text_file(path)
    data = path.read_bytes()
    if b"\0" in data:
        raise ValueError(sentence("recurra", str(path), "a text in UTF-8", "a binary file (it has zero bytes)"))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = f"byte 0x{data[error.start]:02x} at position {error.start:,}"
        raise ValueError(sentence("recurra", str(path), "a text in UTF-8", place, _convert("LATIN1"))) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if len(text) < min_chars:
        want = f"a text of at least {min_chars:,} characters"
        raise ValueError(sentence("recurra", str(path), want, f"{len(text):,}" if text else "an empty file"))
    return text


def _convert(encoding: str) -> str:
    return f"Convert it first, for example: iconv -f {encoding} -t UTF-8 OLD > NEW."


def minutes(text: str) -> float:
    """``15m``, ``90s``, ``1.5h``; a bare number is in minutes.

    Example:
        >>> minutes("90s"), minutes("15")
        (1.5, 15.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(s|sec|m|min|h|)\s*", text)
    value = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0 < value < math.inf:
        raise ValueError(sentence("recurra", "--budget", "a time such as 15m, 90s or 1.5h", repr(text)))
    return value


def clock(seconds: float) -> str:
    """A duration for reading.

    Example:
        >>> clock(75), clock(3675)
        ('1:15', '1:01:15')
    """
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
