"""A text that is read and written piece by piece."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from ..core.cell import Cell
from ..core.checks import check_positive, sentence
from ..core.engine import Engine
from ..core.tree import Tree
from ..engines import unroll
from .tokens import Tokens
from .training_run import WHERE, evaluating

CHUNK = 1000  # tokens that are read at a time


class TextStream:
    """Where a language model stands in a text: its state, and what it expects next.

    Any way of cutting a text into calls of `read` gives the same numbers. Words must be whole in each call.

    Args:
        cell: tokens (B,) in, logits (B, V) out.
        tokens: how texts become tokens.
        engine: how to run the cell.
    Example:
        >>> from recurra.estimators import LanguageModel
        >>> model = LanguageModel(hidden_size=8, embedding_size=4, num_updates=2).fit("to be or not to be " * 9)
        >>> stream = model.stream()
        >>> len(stream.read("to be")), len(stream.read(" or")), len(stream.write(7))
        (4, 3, 7)
    """

    def __init__(self, cell: Cell, tokens: Tokens, engine: Engine) -> None:
        self.cell, self.tokens, self.engine = cell, tokens, engine
        with torch.no_grad():
            self.state: Tree = cell.initial_state(1)
        self.logits: Tensor | None = None  # (V,) for the next token; None at the beginning
        self.num_read = 0

    def read(self, text: str) -> Tensor:
        """Read on.

        Args:
            text: what comes next.

        Returns:
            (N,) log-probability in nats that each of its tokens had, given all before it. The first token of a stream is
            predicted by nothing and has none.
        """
        check_string("text", text)
        return self._read(self.tokens.encode(text))

    def _read(self, tokens: Tensor) -> Tensor:
        cell, found = self.cell, []
        with torch.no_grad(), evaluating(cell):
            for part in tokens.to(cell.device).split(CHUNK) if len(tokens) else ():
                ys, self.state = unroll(cell, part[:, None], self.state, engine=self.engine)
                logits = ys[:, 0].float()
                if self.logits is not None:
                    before, targets = torch.cat([self.logits[None], logits[:-1]]), part
                else:
                    before, targets = logits[:-1], part[1:]
                found.append(before.log_softmax(-1).gather(1, targets[:, None])[:, 0].cpu())
                self.logits = logits[-1]
                self.num_read += len(part)
        return torch.cat(found) if found else torch.zeros(0)

    def next_log_probabilities(self) -> Tensor:
        """(V,) log-probabilities of the next token, the unknown one first where there is one.

        Raises:
            ValueError: nothing was read yet.
        """
        if self.logits is None:
            raise ValueError(sentence(WHERE, "the stream", "one that has read something", "a new one"))
        return self.logits.log_softmax(-1).cpu()

    def fork(self) -> Self:
        """Another stream that stands at the same place and goes its own way."""
        other = type(self)(self.cell, self.tokens, self.engine)
        other.state, other.logits, other.num_read = self.state, self.logits, self.num_read
        return other

    def write(
        self,
        length: int,
        temperature: float = 0.8,
        top_k: int | None = None,
        *,
        top_p: float | None = None,
        seed: int = 0,
    ) -> str:
        """Write on: draw a token, read it, and so forth. A new stream begins with any token.

        Args:
            length, temperature, top_k, top_p, seed: as for `LanguageModel.generate`.

        Returns:
            The new text.
        """
        if not isinstance(length, int) or length < 0:
            raise ValueError(sentence(WHERE, "length", "a whole number of at least 0", repr(length)))
        for name, value in (("temperature", temperature), ("top_p", top_p)):
            if not (isinstance(value, int | float) or (name == "top_p" and value is None)):
                raise TypeError(sentence(WHERE, name, "a number", repr(value)))
        if not isinstance(seed, int) or not -(2**63) <= seed < 2**63:
            raise ValueError(sentence(WHERE, "seed", "a whole number of at most 63 bits", repr(seed)))
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ValueError(sentence(WHERE, "temperature", "at least 0", temperature))
        if top_k is not None:
            check_positive(WHERE, top_k=top_k)
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(sentence(WHERE, "top_p", "a probability above 0, at most 1", top_p))
        generator = torch.Generator().manual_seed(seed)
        first, written = self.tokens.first_written, []
        cell = self.cell
        with torch.no_grad(), evaluating(cell):
            for _ in range(length):
                if self.logits is None:
                    token = int(torch.randint(first, self.tokens.num_tokens, (), generator=generator))
                else:
                    token = first + choose(self.logits[first:].cpu(), temperature, top_k, top_p, generator)
                y, self.state = cell.step(torch.tensor([token], device=cell.device), self.state)
                self.logits = y[0].float()
                self.num_read += 1
                written.append(token)
        return self.tokens.decode(written)


def check_string(name: str, value: object) -> None:
    """Raise unless a text is one."""
    if not isinstance(value, str):
        raise TypeError(sentence(WHERE, name, "a text", type(value).__name__))


def choose(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> int:
    """Draw an index from softmax(logits / temperature), of the likeliest ones only where that is wanted."""
    if temperature == 0:
        return int(logits.argmax())
    if top_k is not None and top_k < len(logits):
        smallest = logits.topk(top_k).values[-1]
        logits = torch.where(logits < smallest, -math.inf, logits)
    logits = (logits.double() - logits.max()) / max(temperature, 1e-6)
    p = logits.softmax(0)
    if top_p is not None and top_p < 1:
        likeliest, order = p.sort(descending=True, stable=True)
        enough = likeliest.cumsum(0) - likeliest >= top_p  # those before it are enough already
        p = torch.where(torch.zeros_like(enough).scatter(0, order, enough), 0.0, p)
    return int(torch.multinomial(p, 1, generator=generator))
