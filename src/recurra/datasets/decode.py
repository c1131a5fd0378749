"""The text in a file, whatever its encoding."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from pathlib import Path
from typing import NamedTuple

from ..core.checks import sentence

MOST_BYTES = 2 << 30  # of an unpacked file
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe\x00\x00", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


class Decoded(NamedTuple):
    """text: with "\\n" at the ends of lines; notes: what was repaired, one sentence each."""

    text: str
    notes: tuple[str, ...]


def read_text(path: str | os.PathLike[str]) -> Decoded:
    """Read a text file, plain or gzip: UTF-8, UTF-16 or UTF-32 with a byte order mark, else Latin-1, which is said.

    Args:
        path: of the file.

    Returns:
        The text and notes about its encoding.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a folder, an empty file, or bytes that are no text.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt").write_bytes(b"caf\\xe9")
        ...     read_text(Path(folder, "a.txt")).text == "caf\\xe9"
        True
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: the file must be there, got none. Check the name and the folder.")
    if not path.is_file():
        raise ValueError(sentence(str(path), "the file", "a file of text", "a folder"))
    return decode(_unpacked(path.read_bytes(), str(path)), str(path))


def decode(data: bytes, where: str) -> Decoded:
    """`read_text` of bytes that have been read already.

    Args:
        data: of the file.
        where: its name, for the messages.

    Raises:
        ValueError: nothing, or bytes that are no text.
    """
    if not data.strip():
        raise ValueError(sentence(where, "the file", "a file with text in it", "an empty one"))
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            try:
                return Decoded(_lines(data.decode(encoding).removeprefix("\ufeff")), ())
            except UnicodeDecodeError:
                if encoding != "utf-8":
                    raise ValueError(_no_text(where, f"{encoding.upper()} that breaks off or is damaged")) from None
    if b"\0" in data:
        raise ValueError(_no_text(where, f"a byte 0 at position {data.index(0)}"))
    try:
        return Decoded(_lines(data.decode("utf-8")), ())
    except UnicodeDecodeError as error:
        controls = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in data[:100_000])
        if controls > len(data[:100_000]) / 100:
            raise ValueError(_no_text(where, f"{controls} control characters among its first bytes")) from None
        note = (
            f"The file is not UTF-8 (byte {error.start}); it was read as Latin-1, in which every byte is a character."
        )
        return Decoded(_lines(data.decode("latin-1")), (note,))


def _unpacked(data: bytes, where: str) -> bytes:
    """The content of a gzip file; anything else as it is."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    stream = gzip.GzipFile(fileobj=io.BytesIO(data))
    try:
        found = stream.read(MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error):
        raise ValueError(_no_text(where, "a damaged gzip file")) from None
    if len(found) > MOST_BYTES:
        raise ValueError(
            sentence(where, "the file", f"at most {MOST_BYTES >> 30} GiB of text", "more", "Unpack it first.")
        )
    return found


def _no_text(where: str, what: str) -> str:
    return sentence(where, "the file", "a text file", what, "It looks like a binary file; export it as CSV or text.")


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
