"""Texts as tokens: characters, bytes, words."""

from __future__ import annotations

import collections
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..training.token_file import TokenFile, smallest_dtype

UNKNOWN_WORD = "<unk>"


class Tokens(ABC):
    """A way to cut texts into tokens, with a vocabulary that was found in a training text.

    Token 0 is `UNKNOWN` where there is one: whatever the training text did not have.
    """

    name: ClassVar[str]
    unit: ClassVar[str]  # one token in words
    has_unknown: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def find(cls, blocks: Iterable[str], size: int) -> Tokens:
        """The vocabulary of a text that comes in blocks, of at most ``size`` words."""

    @classmethod
    @abstractmethod
    def restore(cls, fitted: dict[str, Any]) -> Tokens:
        """From what `fitted` returned; raises ValueError where that is damaged."""

    @abstractmethod
    def fitted(self) -> dict[str, Any]:
        """JSON values."""

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """V, the unknown one included."""

    @abstractmethod
    def split(self, text: str) -> list[str]:
        """The text's tokens as texts."""

    @abstractmethod
    def encode(self, text: str) -> Tensor:
        """(N,) int64."""

    @abstractmethod
    def decode(self, tokens: list[int]) -> str:
        """The text of tokens; none of them is the unknown one."""

    def unknown_in(self, text: str) -> str | None:
        """What of a text a prompt must not have."""
        return None

    @property
    def newline(self) -> str:
        """What samples begin with: a new line if that is a token, else nothing."""
        return "\n"

    @property
    def first_written(self) -> int:
        """The first token that a model may write: the unknown one is never written."""
        return 1 if self.has_unknown else 0


class Characters(Tokens):
    """Each character of the training text, in the order of their code points."""

    name, unit = "chars", "characters"

    def __init__(self, vocabulary: str) -> None:
        self.vocabulary = vocabulary
        self.known = torch.tensor([ord(c) for c in vocabulary])

    @classmethod
    def find(cls, blocks: Iterable[str], size: int) -> Characters:
        """See `Tokens.find`."""
        found: set[str] = set()
        for block in blocks:
            found |= set(block)
        return cls("".join(sorted(found)))

    @classmethod
    def restore(cls, fitted: dict[str, Any]) -> Characters:
        """See `Tokens.restore`."""
        vocabulary = fitted["vocabulary"]
        if not isinstance(vocabulary, str) or not vocabulary or list(vocabulary) != sorted(set(vocabulary)):
            raise ValueError("its vocabulary is no sorted list of different characters")
        return cls(vocabulary)

    def fitted(self) -> dict[str, Any]:
        """See `Tokens.fitted`."""
        return {"vocabulary": self.vocabulary}

    @property
    def num_tokens(self) -> int:
        """See `Tokens.num_tokens`."""
        return len(self.vocabulary) + 1

    def split(self, text: str) -> list[str]:
        """See `Tokens.split`."""
        return list(text)

    def encode(self, text: str) -> Tensor:
        """See `Tokens.encode`."""
        if not text:
            return torch.zeros(0, dtype=torch.int64)
        codes = torch.frombuffer(bytearray(text.encode("utf-32-le", "surrogatepass")), dtype=torch.int32).long()
        place = torch.searchsorted(self.known, codes).clamp(max=len(self.known) - 1)
        return torch.where(self.known[place] == codes, place + 1, 0)

    def decode(self, tokens: list[int]) -> str:
        """See `Tokens.decode`."""
        return "".join(self.vocabulary[i - 1] for i in tokens)

    def unknown_in(self, text: str) -> str | None:
        """See `Tokens.unknown_in`."""
        return next((c for c in text if c not in self.vocabulary), None)

    @property
    def newline(self) -> str:
        """See `Tokens.newline`."""
        return "\n" if "\n" in self.vocabulary else ""


class Bytes(Tokens):
    """The 256 values of a byte of the text in UTF-8: nothing is ever unknown."""

    name, unit, has_unknown = "bytes", "bytes", False

    @classmethod
    def find(cls, blocks: Iterable[str], size: int) -> Bytes:
        """See `Tokens.find`."""
        return cls()

    @classmethod
    def restore(cls, fitted: dict[str, Any]) -> Bytes:
        """See `Tokens.restore`."""
        return cls()

    def fitted(self) -> dict[str, Any]:
        """See `Tokens.fitted`."""
        return {}

    @property
    def num_tokens(self) -> int:
        """See `Tokens.num_tokens`."""
        return 256

    def split(self, text: str) -> list[str]:
        """See `Tokens.split`; a byte that is no character is shown as an escape."""
        return [bytes([b]).decode("ascii", "backslashreplace") for b in text.encode("utf-8", "surrogatepass")]

    def encode(self, text: str) -> Tensor:
        """See `Tokens.encode`."""
        data = bytearray(text.encode("utf-8", "surrogatepass"))
        return torch.frombuffer(data, dtype=torch.uint8).long() if data else torch.zeros(0, dtype=torch.int64)

    def decode(self, tokens: list[int]) -> str:
        """See `Tokens.decode`; bytes that are no UTF-8 become U+FFFD."""
        return bytes(tokens).decode("utf-8", "replace")


class Words(Tokens):
    """What stands between white space, and the end of a line as a word of its own; the most frequent ones are known.

    Any other word, and the word ``<unk>`` itself, is the unknown token.
    """

    name, unit = "words", "words"

    def __init__(self, vocabulary: list[str]) -> None:
        self.vocabulary = vocabulary
        self.place = {word: i + 1 for i, word in enumerate(vocabulary)}

    @classmethod
    def find(cls, blocks: Iterable[str], size: int) -> Words:
        """See `Tokens.find`."""
        counts: collections.Counter[str] = collections.Counter()
        for block in blocks:
            counts.update(_words(block))
        del counts[UNKNOWN_WORD]
        order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls([word for word, _ in order[:size]])

    @classmethod
    def restore(cls, fitted: dict[str, Any]) -> Words:
        """See `Tokens.restore`."""
        words = fitted["vocabulary"]
        if not isinstance(words, list) or not all(isinstance(w, str) for w in words) or len({*words}) < len(words):
            raise ValueError("its vocabulary is no list of different words")
        return cls(words)

    def fitted(self) -> dict[str, Any]:
        """See `Tokens.fitted`."""
        return {"vocabulary": self.vocabulary}

    @property
    def num_tokens(self) -> int:
        """See `Tokens.num_tokens`."""
        return len(self.vocabulary) + 1

    def split(self, text: str) -> list[str]:
        """See `Tokens.split`."""
        return _words(text)

    def encode(self, text: str) -> Tensor:
        """See `Tokens.encode`."""
        place = self.place
        return torch.tensor([place.get(word, 0) for word in _words(text)], dtype=torch.int64)

    def decode(self, tokens: list[int]) -> str:
        """See `Tokens.decode`: a space between two words of a line."""
        text = ""
        for token in tokens:
            word = self.vocabulary[token - 1]
            text += word if word == "\n" or not text or text.endswith("\n") else " " + word
        return text

    @property
    def newline(self) -> str:
        """See `Tokens.newline`."""
        return "\n" if "\n" in self.place else ""


def _words(text: str) -> list[str]:
    """The words of each line, and a ``\\n`` after each line but the last.

    Example:
        >>> _words("to  be\\nor")
        ['to', 'be', '\\n', 'or']
    """
    lines = text.split("\n")
    found = [word for line in lines[:-1] for word in (*line.split(), "\n")]
    return found + lines[-1].split()


KINDS: dict[str, type[Tokens]] = {kind.name: kind for kind in (Characters, Bytes, Words)}


def token_file(tokens: Tokens, blocks: Iterable[str], path: str | os.PathLike[str]) -> TokenFile:
    """A text as tokens on the disk, written block by block."""
    dtype = smallest_dtype(tokens.num_tokens)
    return TokenFile.write(path, (tokens.encode(block).numpy().astype(dtype) for block in blocks), dtype)
