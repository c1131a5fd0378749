"""The Ising model in two dimensions with 64 spins in a word."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.checks import check_choice, sentence
from .packed_words import LANES, NUM_BITS, packed_counts, packed_passes, reference_pass
from .systems import Lattice


class PackedState(NamedTuple):
    """Spins and the generators that move them.

    Args:
        words: (2, H, W) int64, by colour of the checkerboard, row and place; a bit is a spin, 1 is up.
        random: (blocks of words, 4, 16) int64, states of xoshiro256++.
    """

    words: Tensor
    random: Tensor


class PackedMeasured(NamedTuple):
    """What a state is like: magnetisation per spin and energy per spin, of each copy, (C,) float64."""

    magnetisation: Tensor
    energy: Tensor


@dataclass(frozen=True)
class PackedIsing:
    """The Ising model on a periodic square lattice, with Metropolis' rule on a checkerboard, 64 spins in a word:

        E = -J sum_<ij> s_i s_j

    The spins of one colour do not see each other, so a whole word of them moves by operations on bits: how many of the four
    neighbours agree is a sum in two bits, and a flip costs energy where three or four do. Every spin has a random number of
    its own, 48 bits long. It is compared with both probabilities bit by bit, for a word of spins at once; 16 bits decide
    nearly always, and the other 32 are drawn only where they do not.

    The bits of a word are parts of one row that lie L / 64 apart (one large lattice), or the same place of 64 lattices that
    know nothing of each other (64 chains for error bars).

    Args:
        shape: (H, L), rows and columns, even; with one copy L is a multiple of 128.
        copies: 1 or 64.
        coupling: J.
        native: machine code; without, the readable form in torch. Both move alike, to the bit.
    State:
        words: H L copies / 64 words of spins. random: four words for each word of half of the lattice.
    Raises:
        ValueError: sides or copies that do not fit.
    Source:
        Multi-spin coding: Zorn, Herrmann & Rebbi 1981, Comput. Phys. Commun. 23:337-342 (from memory); the generator: Blackman
        & Vigna 2021, ACM Trans. Math. Softw. 47(4):36, doi:10.1145/3460772
    Cost:
        About 18 random words for 64 spins.
    Example:
        >>> ising = PackedIsing((16, 16), copies=64)
        >>> state = ising.sweep(ising.start(seed=0, up=True), beta=1.0, num_sweeps=10)
        >>> ising.measure(state).magnetisation.shape
        torch.Size([64])
    """

    shape: tuple[int, int]
    copies: int = 1
    coupling: float = 1.0
    native: bool = True

    def __post_init__(self) -> None:
        check_choice("PackedIsing", "copies", self.copies, (1, 64))
        height, length = self.shape
        if height < 2 or height % 2 or length < 2 or length % 2:
            raise ValueError(sentence("PackedIsing", "shape", "two even sides", tuple(self.shape)))
        if self.copies == 1 and length % 128:
            hint = "Take copies=64 for smaller lattices."
            raise ValueError(sentence("PackedIsing", "shape", "(H, a multiple of 128)", tuple(self.shape), hint))

    @property
    def num_spins(self) -> int:
        """N of one copy."""
        return self.shape[0] * self.shape[1]

    @property
    def _width(self) -> int:
        """W, words of one colour in a row."""
        return self.shape[1] // 2 * self.copies // 64

    @property
    def _wrap(self) -> int:
        return int(self.copies == 1)

    def lattice(self) -> Lattice:
        """The same system, for any other dynamics."""
        return Lattice(self.shape, self.coupling)

    def start(self, seed: int, up: bool = False) -> PackedState:
        """All spins up, or each up or down with equal probability; and fresh generators."""
        generator = torch.Generator().manual_seed(seed)
        height, width = self.shape[0], self._width
        size = (height * -(-width // LANES), 4, LANES)
        random = torch.randint(-(2**63), 2**63 - 1, size, generator=generator)
        words = torch.randint(-(2**63), 2**63 - 1, (2, height, width), generator=generator)
        return PackedState(torch.full_like(words, -1) if up else words, random)

    def pack(self, spins: Tensor) -> Tensor:
        """(2, H, W) int64 words of spins (C, N)."""
        if spins.shape != (self.copies, self.num_spins):
            want = f"({self.copies}, {self.num_spins})"
            raise ValueError(sentence("PackedIsing", "spins", want, tuple(spins.shape)))
        height, length = self.shape
        bits = (spins > 0).long().reshape(self.copies, height, length // 2, 2)
        odd = (torch.arange(height) % 2 == 1)[:, None]
        first, second = bits.unbind(-1)
        colours = torch.stack([torch.where(odd, second, first), torch.where(odd, first, second)])  # (2, C, H, L / 2)
        by_bit = colours if self.copies == 64 else colours.reshape(2, height, 64, self._width).transpose(1, 2)
        return (by_bit << torch.arange(64)[:, None, None]).sum(1)

    def unpack(self, words: Tensor) -> Tensor:
        """(C, N) int8 spins of words (2, H, W)."""
        height, length = self.shape
        by_bit = (words[:, None] >> torch.arange(64)[:, None, None]) & 1
        if self.copies == 1:
            by_bit = by_bit.transpose(1, 2).reshape(2, 1, height, length // 2)
        odd = (torch.arange(height) % 2 == 1)[:, None]
        black, white = by_bit
        bits = torch.stack([torch.where(odd, white, black), torch.where(odd, black, white)], -1)
        return (2 * bits - 1).to(torch.int8).reshape(self.copies, self.num_spins)

    def sweep(self, state: PackedState, beta: float, num_sweeps: int = 1) -> PackedState:
        """The state after every spin has been asked ``num_sweeps`` times; the given one stays as it is.

        Args:
            beta: 1 / T, from 0; infinity is temperature zero. At 0 every spin turns over at every sweep.
        """
        if not beta >= 0:
            raise ValueError(sentence("PackedIsing", "beta", "at least 0", beta))
        words, random = state.words.clone(), state.random.clone()
        masks, same = self._masks(beta), -int(self.coupling > 0)
        if not self.native:
            for step in range(2 * num_sweeps):
                reference_pass(words, random, masks, step % 2, self._wrap, same)
            return PackedState(words, random)
        every = (words, random, masks)
        threads = torch.get_num_threads() if words.numel() >= 2**14 else 1
        if threads == 1:
            packed_passes(*every, 0, 2 * num_sweeps, self._wrap, np.uint64(same % 2**64))
        else:  # the second colour waits until all threads are through with the first
            for step in range(2 * num_sweeps):
                packed_passes(*every, step % 2, 1, self._wrap, np.uint64(same % 2**64), threads=threads)
        return PackedState(words, random)

    def _masks(self, beta: float) -> Tensor:
        """(2, 48): bits of exp(-4 beta |J|) and exp(-8 beta |J|), least first, 0 or -1."""
        bits = []
        for cost in (4, 8):
            strength = abs(self.coupling)
            chance = math.exp(-cost * beta * strength) if strength else 1.0
            number = min(round(chance * 2**NUM_BITS), 2**NUM_BITS - 1)
            bits.append([-(number >> k & 1) for k in range(NUM_BITS)])
        return torch.tensor(bits)

    def measure(self, state: PackedState) -> PackedMeasured:
        """Magnetisation and energy per spin of every copy."""
        ups, unequal = torch.zeros(64, dtype=torch.int64), torch.zeros(64, dtype=torch.int64)
        packed_counts(state.words, self._wrap, ups, unequal)
        if self.copies == 1:
            ups, unequal = ups.sum(0, keepdim=True), unequal.sum(0, keepdim=True)
        magnetisation = 2.0 * ups.double() / self.num_spins - 1
        return PackedMeasured(magnetisation, self.coupling * (2.0 * unequal.double() / self.num_spins - 2))
