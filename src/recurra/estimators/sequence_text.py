"""Texts as the nets of `SequenceClassifier` and `SequenceRegressor` read them: words and pieces of words."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.cell import PointwiseCell
from ..core.checks import check_positive, sentence
from ..core.spec import Leaf

NOTHING, UNKNOWN = 0, 1  # padding; any word that is not in the vocabulary
MAX_PIECES = 40
PIECE_LENGTHS = (2, 3, 4)

Ids = np.ndarray[Any, np.dtype[np.int64]]

_WORD = re.compile(r"\w+|[^\w\s]")


def words_of(text: str, lowercase: bool = True) -> list[str]:
    """Words and single other characters.

    Example:
        >>> words_of("Who's there?")
        ['who', "'", 's', 'there', '?']
    """
    return _WORD.findall(text.lower() if lowercase else text)


def pieces_of(word: str, num_buckets: int) -> list[int]:
    """Places 1 .. num_buckets of the word's pieces: 2 to 4 characters in a row, its ends marked.

    Example:
        >>> len(pieces_of("cat", 1000))
        9
    """
    marked = f"<{word}>"
    found = [marked[i : i + n] for n in PIECE_LENGTHS for i in range(len(marked) - n + 1)][:MAX_PIECES]
    return [zlib.crc32(piece.encode("utf-8", "surrogatepass")) % num_buckets + 1 for piece in found]


def read_texts(where: str, X: Any) -> list[str]:
    """Texts as a list.

    Raises:
        TypeError: something else.
        ValueError: no text.
    """
    if isinstance(X, str):
        raise TypeError(sentence(where, "X", "a list of texts", "one text", "Write [text]."))
    texts = list(X)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(sentence(where, f"X[{i}]", "a text, as the others are", type(text).__name__))
    if not texts:
        raise ValueError(sentence(where, "X", "at least one text", "none"))
    return texts


@dataclass(frozen=True)
class TextEncoder:
    """What was found in the training texts, and how a text becomes the input of a net.

    A step is a word: its place in the vocabulary (1 for words not in it) and the places of its pieces.

    Args:
        vocabulary: words; the first has place 2.
        lowercase: are capitals small letters?
        num_buckets: places for pieces of words (they share places by a hash); 0 for no pieces.
    """

    vocabulary: tuple[str, ...]
    lowercase: bool
    num_buckets: int
    _places: dict[str, int] = field(init=False, repr=False, compare=False)
    _ids: dict[str, list[int]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {word: i for i, word in enumerate(self.vocabulary, start=2)})

    @classmethod
    def fitted(cls, texts: Sequence[str], *, lowercase: bool, min_count: int, num_buckets: int) -> TextEncoder:
        """Find the words that occur at least ``min_count`` times."""
        counts = Counter(word for text in texts for word in words_of(text, lowercase))
        return cls(tuple(sorted(w for w, n in counts.items() if n >= min_count)), lowercase, num_buckets)

    @classmethod
    def of(cls, values: dict[str, Any]) -> TextEncoder:
        """From `to_json`."""
        words = values["vocabulary"]
        if not isinstance(words, list) or not all(isinstance(w, str) for w in words) or len(set(words)) < len(words):
            raise ValueError("its vocabulary is no list of different words")
        return cls(tuple(words), bool(values["lowercase"]), int(values["num_buckets"]))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"vocabulary": list(self.vocabulary), "lowercase": self.lowercase, "num_buckets": self.num_buckets}

    @property
    def num_words(self) -> int:
        """Places for words, padding and the unknown word included."""
        return len(self.vocabulary) + 2

    def ids(self, word: str) -> list[int]:
        """The word's place, then those of its pieces."""
        found = self._ids.get(word)
        if found is None:
            pieces = pieces_of(word, self.num_buckets) if self.num_buckets else []
            found = [self._places.get(word, UNKNOWN), *pieces]
            if len(self._ids) < 200_000:
                self._ids[word] = found
        return found

    def encode(self, text: str, word_dropout: float = 0.0, rng: np.random.Generator | None = None) -> Ids:
        """The input (words, 1 + pieces) of a net; an empty text is one unknown word without pieces.

        Args:
            text: any.
            word_dropout: probability that a word is taken as unknown, its pieces being kept.
            rng: source of it.
        """
        found = [self.ids(word) for word in words_of(text, self.lowercase)] or [[UNKNOWN]]
        out = np.zeros((len(found), max(map(len, found))), np.int64)
        for i, ids in enumerate(found):
            out[i, : len(ids)] = ids
        if word_dropout and rng is not None:
            out[rng.random(len(out)) < word_dropout, 0] = UNKNOWN
        return out

    def num_unknown(self, text: str) -> tuple[int, int]:
        """Words that are not in the vocabulary, and all words."""
        words = words_of(text, self.lowercase)
        return sum(word not in self._places for word in words), len(words)


class TextEmbedding(PointwiseCell[Tensor, Tensor]):
    """A vector for a word, made of the word's own and of those of its pieces.

        y = W[w] + 1/sqrt(n) sum_k G[p_k]

    Args:
        num_words: V, places of words.
        output_size: E.
        num_buckets: places of pieces; 0 for none.
        std: standard deviation of the first vectors.
    Source:
        Bojanowski, Grave, Joulin & Mikolov 2017, TACL 5:135-146 (words as sums of their pieces; from memory)
    Cost:
        E n additions per word of n pieces.
    """

    source = "Bojanowski, Grave, Joulin & Mikolov 2017, TACL 5:135-146"

    def __init__(self, num_words: int, output_size: int, num_buckets: int = 0, *, std: float = 0.1) -> None:
        super().__init__()
        check_positive(type(self).__name__, num_words=num_words, output_size=output_size)
        self.num_words, self.output_size, self.num_buckets = num_words, output_size, num_buckets
        self.words = nn.Parameter(torch.randn(num_words, output_size) * std)
        self.pieces = nn.Parameter(torch.randn(num_buckets + 1, output_size) * std) if num_buckets else None
        with torch.no_grad():
            self.words[NOTHING] = 0.0

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """With and without pieces."""
        yield cls(4, 3, 5)
        yield cls(4, 3)

    @property
    def input_spec(self) -> Leaf:
        """Places (B, K) int64: of the word, then of its pieces."""
        return Leaf(("K",), torch.int64, 0, max(self.num_words, self.num_buckets + 1))

    def pointwise(self, x: Tensor) -> Tensor:
        """The sum of the vectors."""
        y = F.embedding(_within(x[..., 0], self.num_words, UNKNOWN), self.words, padding_idx=NOTHING)
        if self.pieces is None or x.shape[-1] == 1:
            return y
        pieces = _within(x[..., 1:], self.num_buckets + 1, NOTHING)
        flat = pieces.reshape(-1, pieces.shape[-1])
        if x.ndim < 3:  # one step: as a plain sum, which torch can also take row by row (vmap)
            summed = torch.where((flat != NOTHING)[..., None], F.embedding(flat, self.pieces), 0.0).sum(-2)
        else:
            summed = F.embedding_bag(flat, self.pieces, mode="sum", padding_idx=NOTHING)
        num = (flat != NOTHING).sum(-1, keepdim=True).clamp(min=1)
        return y + (summed * num.to(summed.dtype).rsqrt()).reshape(y.shape)


def _within(places: Tensor, num: int, other: int) -> Tensor:
    """The range of both tables is that of the longer one: a place beyond a table is ``other``."""
    return torch.where(places < num, places, other)
