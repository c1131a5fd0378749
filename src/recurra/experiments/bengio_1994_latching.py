"""Bengio et al. 1994: what latches robustly forgets its gradient."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..cells import ElmanCell, LSTMCell, NARXCell
from ..cells.elman import ElmanState
from ..cells.lstm import LSTMState
from ..cells.narx import NARXState
from ..core import BinaryCrossEntropy, Cell, Chunk, Claim, Experiment, Log, tree
from ..engines import Auto
from ..tasks.latch import latch_problem
from ..wrappers import Readout
from .trials import Trial, learn_until

DELAYS = 6
NETS: dict[str, Callable[[torch.Generator], Cell]] = {
    "one tanh unit": lambda g: ElmanCell(1, 1, generator=g),
    "tanh": lambda g: ElmanCell(1, 8, generator=g),
    "NARX": lambda g: NARXCell(1, 8, num_delays=DELAYS, generator=g),
    "LSTM": lambda g: LSTMCell(1, 8, peephole=True, forget_bias=5.0, generator=g),
}


@dataclass(frozen=True)
class Bengio1994Latching(Experiment):
    """A net of tanh units that holds a bit against noise loses the gradient of that bit; a memory cell loses nothing.

    Four parts. (1) Nets that learned to latch: the norm of dh_T / dh_t, as backpropagation gives it, falls exponentially
    with T - t, at the rate that the singular values of the single steps' Jacobians give. (2) The longer the sequences, the
    fewer trials learn; LSTM goes on learning. (3) A memory cell whose forget gate is 1 passes its gradient on unchanged.
    (4) The same tanh units with output delays (NARX) lose the gradient more slowly, and learn by the same gradient descent
    over longer sequences. A single unit whose D delays share one weight w rests at y = tanh(w y) whatever D is; its
    gradient falls by the largest root of z^D = (w / D) (1 - y^2) (z^(D - 1) + ... + 1) a step.

    Args:
        num_seeds: trials of each kind of net and each length.
        lengths: T of the sequences.
        rate_length: T of the sequences that the nets of part 1 learned; one of ``lengths``. (Those with delays, of part 4,
            learned the longest: to bridge ten steps they need not latch.)
        batch_size: sequences in an update.
        num_updates: at most, in every trial.
        lr: learning rate of gradient descent, by which the tanh units learn, with and without delays, as in the paper.
        lr_lstm: Adam's learning rate, for LSTM.
        clip_norm: largest norm of a gradient.
        noise_variance: of the values that follow the first.
        num_test: test sequences; a trial has learned when all of them are answered rightly.
        span: steps over which part 1 follows gradients.
        carousel_steps: steps of part 3.
        unit_weight: w of the single unit of part 4; above 1, so that it latches.
    Source:
        Bengio, Simard & Frasconi 1994, IEEE Trans. Neural Networks 5(2):157-166, doi:10.1109/72.279181 (introduction read;
        the experiments as told in Schmidhuber, Hochreiter & Bengio 2001, the rest from memory); NARX nets: Lin, Horne,
        Tino & Giles 1996, IEEE Trans. Neural Networks 7(6):1329-1338, doi:10.1109/72.548162 (abstract read)
    Differs:
        The values that begin a sequence are +1 and -1 and not learned; a linear output on eight units (or peephole LSTM cells)
        beside the paper's one unit. Gradients are clipped. By Adam, which divides a gradient by its usual size however small
        that is, eight tanh units mostly learn to latch over 60 steps all the same (nine of ten did). The paper's other methods
        (annealing, discrete errors, Newton) are left out. The NARX net is the eight tanh units with outputs delayed by 1 to 6
        steps; all its weights learn.
    """

    id: ClassVar[str] = "bengio-1994-latching"
    source: ClassVar[str] = (
        "Bengio, Simard & Frasconi 1994, IEEE Trans. Neural Networks 5(2):157-166, doi:10.1109/72.279181"
    )
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("rate_off_worst", 0.05, "lower", "", "decay of the norm against singular values of the steps", "theorem"),
        Claim("volume_off_worst", 1e-6, "lower", "0", "product of all singular values against the steps'", "theorem"),
        Claim("slowest_decay", 0.999, "lower", "below 1", "factor a step, nets that latch", "theorem"),
        Claim("tanh_success", 0.2, "lower", "falls with T", "8 tanh units, longest", "from memory", control=True),
        Claim("one_unit_success", 0.2, "lower", "falls with T", "one tanh unit, longest", "from memory", control=True),
        Claim(
            "narx_reach_over_tanh",
            2.0,
            "higher",
            "2 to 3 times",
            "abstract of Lin et al.; longest T half learn",
            "read",
        ),
        Claim("narx_slower", 2.0, "higher", "slower", "steps to lose a factor of the gradient, NARX over tanh"),
        Claim("unit_decay_off", 1e-3, "lower", "0", "gradient of one unit with 1 to 6 delays, off the root", "theorem"),
        Claim("lstm_success", 1.0, "higher", "", "LSTM, longest sequences"),
        Claim("carousel_off", 0.0, "lower", "0", "gradient of a memory cell, forget gate 1, minus 1", "theorem"),
        Claim("carousel_left_open_gate", 0.01, "lower", "", "the same, forget bias 1", "theorem", control=True),
    )

    num_seeds: int = 10
    lengths: tuple[int, ...] = (5, 10, 20, 40, 60)
    rate_length: int = 10
    batch_size: int = 32
    num_updates: int = 1500
    lr: float = 0.5
    lr_lstm: float = 0.02
    clip_norm: float = 1.0
    noise_variance: float = 0.2
    num_test: int = 500
    span: int = 100
    carousel_steps: int = 1000
    unit_weight: float = 1.25

    @classmethod
    def smoke(cls) -> Self:
        """Two trials, short sequences."""
        return cls(num_seeds=2, lengths=(2, 4), rate_length=2, num_updates=60, num_test=20, span=30, carousel_steps=20)

    def run(self, log: Log) -> Mapping[str, float]:
        """Learning at every length, then the gradients of what was learned."""
        runs: dict[str, list[list[Trial]]] = {name: [] for name in NETS}
        jobs = [(name, num_steps) for name in NETS for num_steps in self.lengths]
        for i, (name, num_steps) in enumerate(jobs):
            log(f"{name}, T = {num_steps}", i / len(jobs))
            runs[name].append([self._trial(name, num_steps, seed) for seed in range(self.num_seeds)])
        success = {name: [_mean(run.solved for run in runs) for runs in each] for name, each in runs.items()}
        near, far = runs["tanh"][self.lengths.index(self.rate_length)], runs["NARX"][-1]
        latch = {"tanh": self._latching(near), "NARX": self._latching(far)}
        gradients = self._gradients(latch["tanh"] or _cells(near[:1]))  # after a short training nobody latches
        delayed = self._delayed_gradients(latch["NARX"] or _cells(far[:1]))
        roots = {d: _root(self.unit_weight, d) for d in range(1, DELAYS + 1)}
        reach = {name: self._reach(values) for name, values in success.items()}
        log.figure("latching", lambda figure: self._draw(figure, success, gradients["curves"], delayed))
        slopes = (delayed[:, -1] - delayed[:, 0]) / (self.span - self.span // 5)
        return {
            "rate_off_worst": float((gradients["measured"] / gradients["expected"] - 1).abs().max()),
            "volume_off_worst": float(gradients["volume_off"].max()),
            "slowest_decay": float(gradients["measured"].exp().max()),
            "mean_decay": float(gradients["measured"].mean().exp()),
            "nets_that_latch": len(latch["tanh"]),
            "tanh_success": success["tanh"][-1],
            "one_unit_success": success["one tanh unit"][-1],
            "narx_reach_over_tanh": reach["NARX"] / reach["tanh"],
            "narx_slower": float(gradients["measured"].mean() / slopes.mean()),
            "narx_decay": float(slopes.mean().exp()),
            "narx_nets_that_latch": len(latch["NARX"]),
            "unit_decay_off": max(abs(self._unit_decay(d) / root - 1) for d, root in roots.items()),
            **{f"unit_decay_{d}_delays": root for d, root in roots.items()},
            "lstm_success": success["LSTM"][-1],
            "carousel_off": abs(self._carousel(1e4) - 1),
            "carousel_left_open_gate": self._carousel(1.0),
            **{f"tanh_success_{t}": value for t, value in zip(self.lengths, success["tanh"])},
            **{f"narx_success_{t}": value for t, value in zip(self.lengths, success["NARX"])},
            **{f"one_unit_success_{t}": value for t, value in zip(self.lengths, success["one tanh unit"])},
            "lstm_updates": _mean(run.updates for run in runs["LSTM"][-1]),
        }

    def _trial(self, name: str, num_steps: int, seed: int) -> Trial:
        """One net, trained on sequences of one length."""
        generator = torch.Generator().manual_seed(seed)
        weights = torch.zeros(num_steps, self.batch_size)
        weights[-1] = 1

        def chunk(n: int) -> Chunk:
            xs, targets = latch_problem(num_steps, self.batch_size, generator, noise_variance=self.noise_variance)
            return Chunk(xs, targets[:, None].expand(num_steps, -1, 1), weights)

        return learn_until(
            Readout(NETS[name](generator), 1, generator=generator),
            chunk,
            BinaryCrossEntropy(),
            self._test(num_steps),
            num_updates=self.num_updates,
            every=50,
            lr=self.lr_lstm if name == "LSTM" else self.lr,
            optimizer=torch.optim.Adam if name == "LSTM" else torch.optim.SGD,
            clip_norm=self.clip_norm,
        )

    def _test(self, num_steps: int) -> Callable[[Cell], bool]:
        """Does a net answer all test sequences of this length rightly?"""
        generator = torch.Generator().manual_seed(1000)
        xs, targets = latch_problem(num_steps, self.num_test, generator, noise_variance=self.noise_variance)

        @torch.no_grad()
        def test(net: Cell) -> bool:
            return bool(((Auto()(net, xs)[0][-1, :, 0] > 0) == (targets > 0)).all())

        return test

    def _reach(self, success: list[float]) -> int:
        """The longest sequences that at least half of the trials learn; the shortest where none are."""
        return max((t for t, share in zip(self.lengths, success) if share >= 0.5), default=self.lengths[0])

    def _latching(self, trials: list[Trial]) -> list[Cell]:
        """The cells, in float64, of the nets that hold the bit far beyond what they were trained on."""
        holds = self._test(2 * self.span)
        return _cells([trial for trial in trials if holds(trial.net)])

    def _gradients(self, cells: list[Cell]) -> dict[str, Tensor]:
        """Of every cell: log factor a step by backpropagation and by the steps' singular values.

        The Jacobian of one step is J_k = diag(1 - h_k^2) U. Its QR decomposition, carried along the sequence, gives the
        logarithm of the largest singular value of J_T ... J_1 without ever forming the product, and that of all together.
        """
        xs = self._one_sequence()
        measured, expected, volume_off, curves = [], [], [], []
        for cell in cells:
            assert isinstance(cell, ElmanCell)
            with torch.no_grad():
                hs = Auto()(cell, xs)[0][:, 0]  # (T, H)
            steps = (1 - hs[self.span :].square()).unsqueeze(-1) * cell.weight_hh.detach()
            q = torch.eye(cell.hidden_size, dtype=torch.float64)
            logs = []
            for step in steps:
                q, r = torch.linalg.qr(step @ q)
                logs.append(r.diagonal().abs().log())
            late = self.span // 5
            expected.append(torch.stack(logs)[late:].sum(0).max() / (self.span - late))
            lags = range(late, self.span + 1, late)
            norms = torch.tensor([_log_norm(_jacobian(cell, xs, hs, self.span + n - 1, self.span)) for n in lags])
            measured.append((norms[-1] - norms[0]) / (self.span - late))
            whole = _jacobian(
                cell, xs, hs, self.span + 1, self.span
            )  # of more steps, rounding hides the smallest values
            few = sum(float(torch.linalg.slogdet(step).logabsdet) for step in steps[:2])
            volume_off.append((torch.linalg.svdvals(whole).log().sum() - few).abs() / abs(few))
            curves.append(norms)
        return {
            "measured": torch.stack(measured),
            "expected": torch.stack(expected),
            "volume_off": torch.stack(volume_off),
            "curves": torch.stack(curves),
        }

    def _one_sequence(self) -> Tensor:
        """(T, 1, 1) the input along which gradients are followed."""
        generator = torch.Generator().manual_seed(2)
        return latch_problem(2 * self.span, 1, generator, noise_variance=self.noise_variance).xs.double()

    def _delayed_gradients(self, cells: list[Cell]) -> Tensor:
        """(nets, lags) log of the norm of dy_T / dy_t over all ways through the delays, of every cell."""
        xs, late = self._one_sequence(), self.span // 5
        curves = []
        for cell in cells:
            assert isinstance(cell, NARXCell)
            with torch.no_grad():
                state = Auto()(cell, xs[: self.span])[1]
            lags = range(late, self.span + 1, late)
            curves.append(torch.tensor([_log_norm(_delayed_jacobian(cell, xs[self.span :][:n], state)) for n in lags]))
        return torch.stack(curves)

    def _unit_decay(self, num_delays: int) -> float:
        """Factor a step by which one unit at rest, without input, loses its gradient, over the second half of the span."""
        cell = NARXCell(1, 1, num_delays=num_delays, bias=False).double()
        with torch.no_grad():
            cell.weight_hh.fill_(self.unit_weight / num_delays)
        rest = torch.full((1, 1), _rest(self.unit_weight), dtype=torch.float64)
        earlier = rest.expand(1, num_delays - 1)[..., None] if num_delays > 1 else ()
        xs = torch.zeros(self.span, 1, 1, dtype=torch.float64)
        half, whole = (
            _log_norm(_delayed_jacobian(cell, xs[:n], NARXState((), earlier, rest)))
            for n in (self.span // 2, self.span)
        )
        return math.exp((whole - half) / (self.span - self.span // 2))

    def _carousel(self, forget_bias: float) -> float:
        """d c_T / d c_0 of one memory cell that reads noise behind a closed input gate, with weights of its own."""
        generator = torch.Generator().manual_seed(3)
        cell = LSTMCell(1, 1, forget_bias=forget_bias, generator=generator).double()
        with torch.no_grad():
            cell.weight_hh.zero_()  # the carousel alone: nothing reaches the gates from the cell's output
            assert cell.bias is not None
            cell.bias[0] = -1e4
        c = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
        xs = torch.randn(self.carousel_steps, 1, 1, generator=generator).double()
        _, state = Auto()(cell, xs, LSTMState(torch.zeros(1, 1, dtype=torch.float64), c))
        (gradient,) = torch.autograd.grad(state.c.sum(), c)
        return float(gradient)

    def _draw(self, figure: Any, success: Mapping[str, list[float]], curves: Tensor, delayed: Tensor) -> None:
        """Success over length, and the norms of the gradients."""
        left, right = figure.subplots(1, 2)
        for (name, values), marker in zip(success.items(), "soD^"):
            left.plot(self.lengths, values, marker + "-", label=name)
        left.axhline(0.2, color="0.7", lw=0.8, ls="--")
        left.set(xlabel="T, length of the sequences", ylabel="trials that learn to latch", ylim=(-0.03, 1.05))
        left.legend(frameon=False)
        late = self.span // 5
        lags = torch.arange(late, self.span + 1, late)
        for nets, color, name in ((curves, "#0077bb", "tanh"), (delayed, "#009988", f"NARX, {DELAYS} delays")):
            for i, curve in enumerate(nets):
                label = None if i else name
                right.plot(lags, curve / math.log(10.0), ".-", lw=0.8, color=color, alpha=0.6, label=label)
        right.axhline(0, color="#cc3311", lw=1.4, label="memory cell, forget gate 1")
        right.set(xlabel="T - t, steps", ylabel="log10 of the norm of dh_T / dh_t")
        right.set_title("Nets that latch", loc="left", fontsize=10)
        right.legend(frameon=False)
        for axis in (left, right):
            axis.spines[["top", "right"]].set_visible(False)


def _cells(trials: list[Trial]) -> list[Cell]:
    """What is inside their readouts, in float64."""
    nets = [trial.net for trial in trials]
    return [copy.deepcopy(net.cell).double() for net in nets if isinstance(net, Readout)]


def _mean(values: Iterable[float]) -> float:
    each = [float(value) for value in values]
    return sum(each) / len(each)


def _jacobian(cell: ElmanCell, xs: Tensor, hs: Tensor, last: int, first: int) -> Tensor:
    """dh_last / dh_(first - 1) by backpropagation through the engine: row i is the gradient of unit i."""
    size = cell.hidden_size
    start = hs[first - 1].detach().expand(size, -1).clone().requires_grad_()
    ys, _ = Auto()(cell, xs[first : last + 1].expand(-1, size, -1), ElmanState(start))
    (rows,) = torch.autograd.grad(ys[-1].diagonal().sum(), start)
    return rows


def _delayed_jacobian(cell: NARXCell, xs: Tensor, state: NARXState) -> Tensor:
    """d (last output) / d (output before the first step), everything earlier held: row i is the gradient of unit i."""
    size = cell.output_size
    wide = tree.map(lambda leaf: leaf.detach().expand(size, *leaf.shape[1:]).clone(), state)
    start = wide.feedback.requires_grad_()
    ys, _ = Auto()(cell, xs.expand(-1, size, -1), wide)
    (rows,) = torch.autograd.grad(ys[-1].diagonal().sum(), start)
    return rows


def _rest(weight: float) -> float:
    """The positive y = tanh(weight y), by iteration."""
    y = 1.0
    for _ in range(1000):
        y = math.tanh(weight * y)
    return y


def _root(weight: float, num_delays: int) -> float:
    """The largest root of the polynomial of part 4: the spectral radius of its companion matrix."""
    slope = weight / num_delays * (1 - _rest(weight) ** 2)
    companion = torch.diag(torch.ones(num_delays - 1, dtype=torch.float64), -1)
    companion[0] = slope
    return float(torch.linalg.eigvals(companion).abs().max())


def _log_norm(matrix: Tensor) -> float:
    """Logarithm of the largest singular value."""
    return float(torch.linalg.matrix_norm(matrix, 2).log())
