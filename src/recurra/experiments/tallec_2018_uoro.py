"""Tallec and Ollivier 2018: learning as a stream goes by, without bias."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..cells import GRUCell, LSTMCell
from ..core import Cell, Chunk, Claim, CrossEntropy, Experiment, LearningRule, Log, MeanSquaredError
from ..learning import RTRL, SGD, UORO, Adam, Online, TruncatedBPTT
from ..tasks.endless_texts import (
    counted_letters,
    counted_letters_entropy,
    distant_brackets,
    distant_brackets_entropy,
)
from ..wrappers import Readout
from .prediction import Stages

_DIVERGED = 1e12


class BalanceState(NamedTuple):
    """s: (B, n) units."""

    s: Tensor


class InfluenceBalance(Cell[Tensor, Tensor, BalanceState]):
    """One parameter that pushes the first units up and the others down; what is far away arrives last, and outweighs.

        s' = A s + theta (1, ..., 1, -1, ..., -1),   A_ii = A_i,i+1 = 1/2,   y = s'_1

    At once, theta raises y. In the long run y is 2 theta (p - (n - p)): with fewer units pushed up than down, it sinks.
    """

    source = "Tallec & Ollivier 2018, ICLR, arXiv:1702.05043 (from memory)"

    def __init__(self, num_units: int, num_positive: int, theta: float = 0.5) -> None:
        super().__init__()
        self.input_size = self.output_size = 1
        self.num_units, self.num_positive = num_units, num_positive
        self.theta = nn.Parameter(torch.tensor([theta], dtype=torch.float64))
        signs = torch.ones(num_units, dtype=torch.float64)
        signs[num_positive:] = -1
        self.signs: Tensor
        self.register_buffer("signs", signs)

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """A short chain."""
        yield cls(5, 2)

    def initial_state(self, batch_size: int) -> BalanceState:
        """All units at 1."""
        return BalanceState(self.initial("s", batch_size, self.num_units, value=1.0))

    def step(self, x: Tensor, state: BalanceState) -> tuple[Tensor, BalanceState]:
        """The input is not used: the system runs by itself."""
        above = F.pad(state.s[:, 1:], (0, 1))
        s = 0.5 * (state.s + above) + self.theta * self.signs + 0 * x
        return s[:, :1], BalanceState(s)


@dataclass(frozen=True)
class Tallec2018Uoro(Experiment):
    """UORO learns where truncated gradients point the wrong way, and, slowly, from a text that it reads once.

    Influence balancing: a parameter has a positive effect at once and a negative one in the long run. The target is 1 at
    every step. The error of each rule at the end of its stream, in powers of ten; truncated gradients that reach 10 or 100
    steps back go the wrong way until the run is stopped at 1e12. Texts: an LSTM (for brackets, a GRU) reads the characters of
    endless texts once and predicts the next; bits per character over the last tenth.

    Args:
        num_seeds: trials of UORO on influence balancing (the other rules draw nothing).
        num_units: n.
        num_positive: p, units that are pushed up.
        num_steps: steps of a stream of influence balancing; ten times as many where updates come every ``reach`` steps.
        num_rows_balance: copies of the system, each with an influence estimate of its own; the mean is followed.
        lr_balance: learning rate of `UORO` there.
        lr_exact: learning rate of the other rules there.
        hidden_size: H of the net that reads.
        num_chars: characters of each text, with an update after every one.
        input_init: of the LSTM's weights of the characters.
        lr: Adam's learning rate on texts, lr / (1 + decay sqrt(t)) behind t characters.
        decay_counted, decay_brackets: see lr.
    Source:
        Tallec & Ollivier 2018, "Unbiased online recurrent optimization", ICLR, arXiv:1702.05043 (abstract and the
        authors' program read, other settings from memory)
    Differs:
        p = 10 of 23 units are pushed up: with 13, effects at once and in the long run have the same sign. Balanced is the mean
        of 16 estimates at a small learning rate; with one estimate and 5e-6, trials ended at errors of 1e-9, 1e-3 and 6.

        The entropy of a^n b^n is 0.143 bits per character (n is all that is free; 0.31 can be had without counting), that of
        the brackets 1.661 (1.94 without the far bracket). Both bars on texts are missed. The authors' program looks
        characters up in a table of N(0, 1) numbers before a linear map, so that the LSTM's gates begin with inputs of a spread
        of 0.58; ours begins there, and the text is read to three million characters. With torch's own start instead, a fifth of
        that spread, UORO stood at 0.31 after one million characters and at 0.26 after three, behind the truncated gradient.
        How near it comes differs from seed to seed: 0.154 for another one, and a third was at 0.172 when it fell back to 0.24.
        A rate that falls twice as fast left 0.20 after two million. The brackets keep to 1.93 whatever was tried: a GRU or an
        LSTM, starts of spread 1, a table of their own, rates four times as large. Larger learning rates brought less, forget
        gates that begin open less again. The truncated gradient that reads the same text with the same updates reaches one
        character back; one that reaches four, on 32 texts side by side, came to 0.146 within three million characters: the
        state goes on from stretch to stretch, and so may a count.
    """

    id: ClassVar[str] = "tallec-2018-uoro"
    source: ClassVar[str] = "Tallec & Ollivier 2018, ICLR, arXiv:1702.05043"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("balance_log10_error_uoro", -4.0, "lower", "UORO converges", "abstract; worst of the trials", "read"),
        Claim(
            "balance_log10_error_truncated_10",
            6.0,
            "higher",
            "truncated BPTT diverges",
            "abstract",
            "read",
            control=True,
        ),
        Claim(
            "balance_log10_error_truncated_100",
            6.0,
            "higher",
            "diverges",
            "figure (from memory)",
            "from memory",
            control=True,
        ),
        Claim("balance_log10_error_truncated_200", -4.0, "lower", "converges", "figure (from memory)", "from memory"),
        Claim("counted_bits_uoro", 0.155, "lower", "near the bound of 0.14", "a^n b^n, n to 32", "from memory"),
        Claim("brackets_bits_uoro", 1.80, "lower", "near the bound of 1.66", "brackets, s=1, k=5, a=10", "from memory"),
        Claim(
            "counted_bits_truncated", 0.155, "higher", "short truncation cannot", "a^n b^n", "from memory", control=True
        ),
    )

    num_seeds: int = 3
    num_units: int = 23
    num_positive: int = 10
    num_steps: int = 6_000
    num_rows_balance: int = 16
    lr_balance: float = 2e-5
    lr_exact: float = 3e-5
    hidden_size: int = 64
    num_chars: int = 3_000_000
    input_init: str = "normal:0.58"
    lr: float = 1e-3
    decay_counted: float = 0.015
    decay_brackets: float = 0.03

    @classmethod
    def smoke(cls) -> Self:
        """One trial, short streams, a small net."""
        return cls(num_seeds=1, num_steps=200, hidden_size=8, num_chars=40)

    def run(self, log: Log) -> Mapping[str, float]:
        """Influence balancing by four rules, then both texts."""
        progress = Stages(log, {"balance": 2, "counted": 6, "brackets": 6, "truncated": 5})
        curves = self._balance(progress("balance"))
        texts: dict[str, tuple[LearningRule[Any], Callable[..., Tensor], Cell, float]] = {
            "counted": (UORO(), counted_letters, self._net(LSTMCell, 3, self.input_init), self.decay_counted),
            "brackets": (UORO(), distant_brackets, self._net(GRUCell, 13), self.decay_brackets),
            "truncated": (
                TruncatedBPTT(),
                counted_letters,
                self._net(LSTMCell, 3, self.input_init),
                self.decay_counted,
            ),
        }
        bits = {name: self._read(*text, progress(name)) for name, text in texts.items()}
        log.figure("balance", lambda figure: _draw_balance(figure, curves))
        log.figure("texts", lambda figure: _draw_texts(figure, bits, self.num_chars))
        ends = {
            name: math.log10(max(float(curve[-max(1, len(curve) // 20) :].mean()), 1e-30))
            for name, curve in curves.items()
        }
        metrics = {f"balance_log10_error_{name}": end for name, end in ends.items()}
        metrics["balance_log10_error_uoro"] = max(end for name, end in ends.items() if name.startswith("uoro"))
        metrics["counted_bits_uoro"] = float(bits["counted"][-1])
        metrics["brackets_bits_uoro"] = float(bits["brackets"][-1])
        metrics["counted_bits_truncated"] = float(bits["truncated"][-1])
        metrics["counted_entropy"], metrics["brackets_entropy"] = counted_letters_entropy(), distant_brackets_entropy()
        metrics["characters_read"] = float(self.num_chars)
        return metrics

    # --- influence balancing ---

    def _balance(self, progress: Callable[[float], None]) -> dict[str, Tensor]:
        """Squared errors along the stream of every rule."""
        curves = {}
        for seed in range(self.num_seeds):
            progress(seed / (self.num_seeds + 4))
            curves[f"uoro_{seed}"] = self._follow(UORO(), self.lr_balance, seed, self.num_rows_balance)
        curves["rtrl"] = self._follow(RTRL(), self.lr_exact)
        for i, reach in enumerate((10, 100, 200)):
            progress((self.num_seeds + 1 + i) / (self.num_seeds + 4))
            curves[f"truncated_{reach}"] = self._follow_truncated(reach)
        return curves

    def _follow(self, rule: LearningRule[Any], lr: float, seed: int = 0, rows: int = 1) -> Tensor:
        """Plain gradient descent, an update after every step; the squared error of each."""
        cell = InfluenceBalance(self.num_units, self.num_positive)
        online = Online(rule, MeanSquaredError(), SGD(lr / rows))
        zeros = torch.zeros(self.num_steps, rows, 1, dtype=torch.float64)
        _, trace = online.run(cell, online.init(cell, rows, seed=seed), Chunk(zeros, torch.ones_like(zeros)))
        return trace.losses / rows

    def _follow_truncated(self, reach: int) -> Tensor:
        """An update after every ``reach`` steps, on ten times as long a stream, until the error is beyond all bounds."""
        cell, loss, rule = InfluenceBalance(self.num_units, self.num_positive), MeanSquaredError(), TruncatedBPTT()
        zeros = torch.zeros(reach, 1, 1, dtype=torch.float64)
        chunk = Chunk(zeros, torch.ones_like(zeros))
        carry, errors = rule.init(cell, 1), []
        for _ in range(10 * self.num_steps // reach):
            carry, estimate = rule.step(cell, carry, chunk, loss)
            errors.append(float(estimate.loss) / reach)
            if not errors[-1] < _DIVERGED:
                break
            with torch.no_grad():
                cell.theta.sub_(self.lr_exact * estimate.direction["theta"])
        return torch.tensor(errors, dtype=torch.float64)

    # --- texts ---

    def _net(self, kind: type[LSTMCell | GRUCell], num_chars: int, input_init: str = "uniform") -> Cell:
        generator = torch.Generator().manual_seed(0)
        cell = kind(num_chars, self.hidden_size, input_init=input_init, generator=generator)
        return Readout(cell, num_chars, generator=generator)

    def _read(
        self,
        rule: LearningRule[Any],
        text: Callable[..., Tensor],
        cell: Cell,
        decay: float,
        progress: Callable[[float], None],
    ) -> Tensor:
        """Bits per character in each tenth of a text that is read once, an update after every character."""
        tenth = max(1, self.num_chars // 10)
        chars, onehot = text(10 * tenth + 1, 1, torch.Generator().manual_seed(0)), torch.eye(cell.output_size)
        online = Online(rule, CrossEntropy(), Adam(self.lr))
        state, total = online.init(cell, 1), torch.zeros(10, 2, dtype=torch.float64)
        falling = 1 / (1 + decay * torch.arange(10 * tenth).sqrt())
        for part in torch.arange(10 * tenth).split(max(1, min(10_000, tenth))):
            a, b = int(part[0]), int(part[-1]) + 1
            state, trace = online.run(cell, state, Chunk(onehot[chars[a:b]], chars[a + 1 : b + 1]), falling[a:b])
            total.index_add_(0, part // tenth, torch.stack([trace.losses, trace.weights], 1).double())
            progress(b / len(falling))
        return total[:, 0] / total[:, 1] / math.log(2)


def _draw_balance(figure: Any, curves: Mapping[str, Tensor]) -> None:
    """Squared errors along the streams."""
    axis = figure.subplots()
    colors = {"rtrl": "#009988", "truncated_10": "#cc3311", "truncated_100": "#ee7733", "truncated_200": "#ee3377"}
    for name, errors in curves.items():
        reach = int(name.partition("_")[2]) if name.startswith("truncated") else 1
        block = max(1, len(errors) // 200)
        mean = errors[: len(errors) // block * block].reshape(-1, block).mean(1).clamp(min=1e-30)
        steps = (torch.arange(len(mean)) + 1) * block * reach
        label = {"uoro_0": "UORO", "rtrl": "RTRL"}.get(name, name.replace("_", " BPTT, ") if reach > 1 else None)
        axis.plot(steps, mean, lw=1.3, color=colors.get(name, "#0077bb"), alpha=1.0, label=label)
    axis.set(xlabel="step of the stream", ylabel="squared error", yscale="log", xscale="log", ylim=(1e-14, 1e13))
    axis.set_title("Influence balancing: short truncation goes the wrong way", loc="left", fontsize=10)
    axis.legend(fontsize=8, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def _draw_texts(figure: Any, bits: Mapping[str, Tensor], num_chars: int) -> None:
    """Bits per character, tenth by tenth, over the entropy."""
    left, right = figure.subplots(1, 2)
    parts = (
        (left, "a^n b^n", {"counted": "UORO", "truncated": "truncated BPTT"}, counted_letters_entropy()),
        (right, "distant brackets", {"brackets": "UORO"}, distant_brackets_entropy()),
    )
    at = (torch.arange(10) + 0.5) / 10 * num_chars
    for axis, title, names, entropy in parts:
        for name, label in names.items():
            axis.plot(
                at, bits[name], "o-", ms=4, lw=1.4, label=label, color="#0077bb" if label == "UORO" else "#cc3311"
            )
        axis.axhline(entropy, color="0.5", lw=1, ls="--", label="entropy")
        axis.set(xlabel="characters read", ylabel="bits per character", ylim=(0, None))
        axis.set_title(title, loc="left", fontsize=10)
        axis.legend(fontsize=8, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
