"""Rosenblatt's perceptrons with closed loops: cross-coupled and back-coupled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.cell import Cell
from ..core.checks import check_positive, sentence
from ..core.spec import Leaf
from ..core.tree import Tree


class PerceptronInput(NamedTuple):
    """stimulus: (B, S); coupling: (B,) 0 opens the loops, 1 closes them; plastic: (B,) from 0 to 1, how much the couplings
    learn; teach: (B, R) from -1 to 1, what the response should be; 0 teaches nothing."""

    stimulus: Tensor
    coupling: Tensor
    plastic: Tensor
    teach: Tensor


class PerceptronState(NamedTuple):
    """a: (B, N) associators, 0 or 1; r: (B, R) responses, -1, 0 or 1; mean: (B, N) their running means; cross: (B, N, N) and
    back: (B, R, N) couplings; weights: (B, N, R) to the responses."""

    a: Tensor
    r: Tensor
    mean: Tensor
    cross: Tensor
    back: Tensor
    weights: Tensor


class PerceptronCell(Cell[PerceptronInput, Tensor, PerceptronState]):
    """S-A-R perceptron whose associators excite each other (cross-coupled) and hear the responses (back-coupled).

        d = G s + c (V' a + U' r)           a' = 1 for the k largest d (and those level with the k-th), 0 for the rest
        u = W' a'                           r' = sign(u)                        y = u
        V' = (1 - delta p) V + eta p (a - m) (a' - m)'         what was active before what, p = plastic
        U' = (1 - delta p) U + eta p r' (a' - m)'              which response goes with what
        m' = (1 - mu p) m + mu p a'
        W' = W + teach a'                                      where it is taught

    G is fixed and random: each associator has ``fan_in`` excitatory and ``fan_in`` // 2 inhibitory places. Couplings are part
    of the state: the cell learns while it runs, without a rule from outside. If transformed stimuli follow each other
    while it is plastic, the loop brings up for one stimulus what was active for the others, and a response that is taught
    for one of them is given for all.

    Args:
        stimulus_size: S.
        num_associators: N.
        num_responses: R.
        active: k, associators that are active.
        cross: with V, or without.
        back: with U, or without.
        rate: eta.
        decay: delta, from 0 to 1.
        mean_rate: mu, from 0 to 1; 0 with ``centred`` False is the plain Hebbian rule.
        centred: m begins at k / N; else m is 0 and stays there.
        fan_in: excitatory places of an associator.
        generator: source of G.
    State:
        a, r: (B, N) and (B, R) activity.
        mean: (B, N) m.
        cross, back: (B, N, N) and (B, R, N) V and U.
        weights: (B, N, R) W.
    Raises:
        ValueError: a size below 1, more active associators than there are, places than there are, rates out of range.
    Source:
        Rosenblatt 1961, "Principles of Neurodynamics", Cornell Aeronautical Laboratory report 1196-G-8, part III:
        cross-coupled perceptrons (chapter 19), back-coupled ones (chapter 21) (from memory)
    Differs:
        Rosenblatt's couplings grow with a_i(t) a_j(t+1) and decay; here activities count from their means, without which all
        stimuli end in one common state. A fixed number of active associators stands for his control of thresholds. Weights
        to the responses follow one presentation of each class (Hebb), not error correction.
    Cost:
        2 N (S + 4 N + 3 R) flops and N (N + 2 R + 2) state values per step and sample.
    Example:
        >>> cell = PerceptronCell(6, 4, 1, active=2, fan_in=2, generator=torch.Generator().manual_seed(0))
        >>> y, state = cell(PerceptronInput(torch.eye(6)[:1], torch.ones(1), torch.ones(1), torch.ones(1, 1)))
        >>> state.cross.shape, bool((state.weights != 0).any())
        (torch.Size([1, 4, 4]), True)
    """

    source = (
        "Rosenblatt 1961, Principles of Neurodynamics, Cornell Aeronautical Laboratory report 1196-G-8, chapters 19, 21"
    )

    def __init__(
        self,
        stimulus_size: int,
        num_associators: int,
        num_responses: int = 1,
        *,
        active: int,
        cross: bool = True,
        back: bool = False,
        rate: float = 0.1,
        decay: float = 0.0,
        mean_rate: float = 0.02,
        centred: bool = True,
        fan_in: int = 10,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_positive(where, stimulus_size=stimulus_size, num_associators=num_associators, num_responses=num_responses)
        check_positive(where, active=active, fan_in=fan_in)
        if active > num_associators:
            raise ValueError(sentence(where, "active", f"at most {num_associators}", active))
        if fan_in + fan_in // 2 > stimulus_size:
            raise ValueError(sentence(where, "fan_in", f"at most {2 * stimulus_size // 3}", fan_in))
        for name, value in {"decay": decay, "mean_rate": mean_rate}.items():
            if not 0 <= value <= 1:
                raise ValueError(sentence(where, name, "from 0 to 1", value))
        self.stimulus_size, self.num_associators, self.num_responses = stimulus_size, num_associators, num_responses
        self.output_size, self.active, self.cross, self.back = num_responses, active, cross, back
        self.rate, self.decay, self.mean_rate, self.centred = rate, decay, mean_rate, centred
        self.fan_in = fan_in
        order = torch.rand(num_associators, stimulus_size, generator=generator, device=device).argsort(1)
        fixed = torch.zeros(num_associators, stimulus_size, device=device, dtype=dtype)
        fixed.scatter_(1, order[:, :fan_in], 1.0).scatter_(1, order[:, fan_in : fan_in + fan_in // 2], -1.0)
        spread = torch.rand(num_associators, 1, generator=generator, device=device)  # so that few are level
        self.fixed: Tensor
        self.register_buffer("fixed", fixed * (1 + 0.01 * spread.to(fixed.dtype)))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Cross-coupled and back-coupled with decay; back-coupled alone with the plain rule."""
        yield cls(4, 4, 2, active=2, back=True, decay=0.1, fan_in=2)
        yield cls(4, 3, 1, active=1, cross=False, back=True, mean_rate=0.0, centred=False, fan_in=2)

    @property
    def input_spec(self) -> Tree:
        """Stimulus, coupling, plasticity, teacher."""
        some = Leaf((), None, 0.0, 1.0)
        return PerceptronInput(
            Leaf((self.stimulus_size,)),  # type: ignore[arg-type]
            some,  # type: ignore[arg-type]
            some,  # type: ignore[arg-type]
            Leaf((self.num_responses,), None, -1.0, 1.0),  # type: ignore[arg-type]
        )

    def hint(self) -> str:
        """How the cell was built."""
        return f"The cell was built with stimulus_size={self.stimulus_size}, num_responses={self.num_responses}."

    def initial_state(self, batch_size: int) -> PerceptronState:
        """At rest, without couplings."""
        n, r = self.num_associators, self.num_responses
        return PerceptronState(
            self.initial("a", batch_size, n),
            self.initial("r", batch_size, r),
            self.initial("mean", batch_size, n, value=self.active / n if self.centred else 0.0),
            self.initial("cross", batch_size, n, n),
            self.initial("back", batch_size, r, n),
            self.initial("weights", batch_size, n, r),
        )

    def step(self, x: PerceptronInput, state: PerceptronState) -> tuple[Tensor, PerceptronState]:
        """The associators, the responses, and what is learned from them."""
        heard = torch.zeros_like(state.a)
        if self.cross:
            heard = heard + (state.a.unsqueeze(-2) @ state.cross).squeeze(-2)
        if self.back:
            heard = heard + (state.r.unsqueeze(-2) @ state.back).squeeze(-2)
        drive = F.linear(x.stimulus, self.fixed) + x.coupling.unsqueeze(-1) * heard
        level = drive.topk(self.active, -1).values[..., -1:]
        a = (drive >= level).to(drive.dtype)
        u = (a.unsqueeze(-2) @ state.weights).squeeze(-2)
        r = u.sign()
        plastic = x.plastic.unsqueeze(-1)
        grow, keep = (self.rate * plastic).unsqueeze(-1), (1 - self.decay * plastic).unsqueeze(-1)
        later = (a - state.mean).unsqueeze(-2)
        return u, PerceptronState(
            a,
            r,
            state.mean + self.mean_rate * plastic * (a - state.mean) if self.centred else state.mean,
            keep * state.cross + grow * (state.a - state.mean).unsqueeze(-1) * later,
            keep * state.back + grow * r.unsqueeze(-1) * later,
            state.weights + a.unsqueeze(-1) * x.teach.unsqueeze(-2),
        )
