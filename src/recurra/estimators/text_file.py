"""Text files that are read in pieces, since they may be larger than memory."""

from __future__ import annotations

import bisect
import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..core.checks import sentence

BLOCK = 1 << 20  # bytes of a file that are read at a time


@dataclass(frozen=True)
class TextPart:
    """A part of a text file in UTF-8, as a text for `LanguageModel`.

    Args:
        path: of the file.
        start, stop: bytes, at the beginnings of characters; stop None: to the end.
    """

    path: Path
    start: int = 0
    stop: int | None = None


class _Piece(NamedTuple):
    """raw: as in the file; at: byte where it begins."""

    raw: str
    at: int


def _pieces(where: str, part: TextPart) -> Iterator[_Piece]:
    """What stands in the file, decoded, without the mark at its beginning; no piece ends inside the end of a line.

    Raises:
        OSError: it cannot be read.
        ValueError: no UTF-8, or no text.
    """
    path, decoder = part.path, codecs.getincrementaldecoder("utf-8")()
    with open(path, "rb") as file:
        at = part.start
        if not at and file.read(3) == codecs.BOM_UTF8:
            at = 3
        file.seek(at)
        read, rest = at, ""
        while True:
            data = file.read(BLOCK if part.stop is None else min(BLOCK, part.stop - read))
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                place = read + len(data) - len(error.object) + error.start
                got = f"byte {error.object[error.start]:#04x} at place {place:,}"
                hint = "" if data else "The file ends inside a character: was it cut off?"
                raise ValueError(sentence(where, str(path), "a text in UTF-8", got, hint)) from None
            if "\0" in text:
                hint = "It looks like a binary file, or like UTF-16 without a mark."
                raise ValueError(sentence(where, str(path), "a text in UTF-8", "a byte 0", hint))
            read += len(data)
            text = rest + text
            rest = "\r" if data and text.endswith("\r") else ""  # perhaps the first half of a line's end
            text = text[: len(text) - len(rest)]
            if text:
                yield _Piece(text, at)
                at = read - len(decoder.getstate()[0]) - len(rest)
            if not data:
                return


def _plain(raw: str) -> str:
    return raw.replace("\r\n", "\n").replace("\r", "\n")


def text_blocks(where: str, part: TextPart) -> Iterator[str]:
    """A text in blocks that end at white space where they can, so that no word is cut; every end of a line is ``\\n``.

    Raises:
        OSError: it cannot be read.
        ValueError: no UTF-8, or no text.
    """
    rest = ""
    for piece in _pieces(where, part):
        text = rest + _plain(piece.raw)
        cut = max(text.rfind(" "), text.rfind("\n")) + 1
        if len(text) - cut > BLOCK:
            cut = len(text)
        rest = text[cut:]
        if cut:
            yield text[:cut]
    if rest:
        yield rest


@dataclass(frozen=True)
class TextFile:
    """What one reading of a text file finds out.

    Args:
        where: who asks, for messages.
        path: of the file, in UTF-8.
    Raises:
        OSError: it cannot be read.
        ValueError: no UTF-8, or no text.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt").write_text("to be or not to be")
        ...     file = TextFile("Doc", Path(folder, "a.txt"))
        ...     before, after = file.cut(6)
        ...     "".join(text_blocks("Doc", before)), "".join(text_blocks("Doc", after))
        ('to be ', 'or not to be')
    """

    where: str
    path: Path
    num_chars: int = field(init=False)
    characters: frozenset[str] = field(init=False)  # the different ones
    _marks: tuple[list[int], list[int]] = field(
        init=False, repr=False, compare=False
    )  # characters before, and the byte

    def __post_init__(self) -> None:
        found: set[str] = set()
        chars, marks, num = [], [], 0
        for raw, at in _pieces(self.where, TextPart(self.path)):
            text = _plain(raw)
            chars.append(num)
            marks.append(at)
            found |= set(text)
            num += len(text)
        object.__setattr__(self, "num_chars", num)
        object.__setattr__(self, "characters", frozenset(found))
        object.__setattr__(self, "_marks", (chars, marks))

    def byte(self, place: int) -> int:
        """Where the character at a place begins; at the end, and beyond it, where the file ends."""
        if place >= self.num_chars:
            return self.path.stat().st_size
        chars, marks = self._marks
        i = bisect.bisect_right(chars, place) - 1
        left = place - chars[i]
        for raw, at in _pieces(self.where, TextPart(self.path, marks[i])):
            size = len(_plain(raw))
            if left > size:
                left -= size
                continue
            begin = 0
            for line in raw.split("\r\n"):  # the end of a line is two characters of the file and one of the text
                if left <= len(line):
                    return at + len(raw[: begin + left].encode("utf-8"))
                left, begin = left - len(line) - 1, begin + len(line) + 2
        return self.path.stat().st_size

    def cut(self, place: int) -> tuple[TextPart, TextPart]:
        """The file before and from the character at a place on."""
        at = self.byte(place)
        return TextPart(self.path, 0, at), TextPart(self.path, at)
