"""Every exact way to a gradient gives the same gradient, on every cell of the catalog; what they cost; what is unbiased."""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.func import functional_call, jvp

from ..cells import ElmanCell, FullyRecurrentCell, IndRNNCell, LSTMCell
from ..core import Cell, Chunk, Claim, Controls, Experiment, LearningRule, Log, Loss, MeanSquaredError, tree
from ..core.catalog import members
from ..core.spec import Leaf
from ..core.tree import Tree
from ..engines import Checkpointed, Loop
from ..engines.unroll import unroll
from ..learning import BPTT, CRBP, RTRL, UORO, EProp, HybridRTRL, SignalFlowAdjoint, SnAp, TruncatedBPTT
from ..wrappers import Readout
from .schmidhuber_1992_n3 import exponent, multiplications

_BATCHES = 40


@dataclass(frozen=True)
class _Squares(Loss):
    """The mean square of every leaf, added up: for outputs of any form."""

    def per_step(self, ys: Tree, targets: Tree) -> Tensor:
        parts = [
            (y - t).square().flatten(2).mean(2)
            for y, t in zip(tree.leaves(ys), tree.leaves(targets))
            if y.is_floating_point()
        ]
        return torch.stack(parts).sum(0)


@dataclass(frozen=True)
class GradientEquivalenceSuite(Experiment):
    """BPTT in all forms, RTRL, the hybrid, forward differentiation, reversed graphs and recursive backpropagation agree.

    Random nets of every cell and wrapper in the catalog, quiet, on random streams with resets, weights and rows of several
    lengths, in float64. The reference is reverse differentiation by torch through the readable loop. A method that does not
    take a cell says so, and the net is left out there. The costs are counted in multiplications, the bias of `UORO` is measured
    along the gradient in standard errors.

    In continuous time, the adjoint equation of a net that is a differential equation, integrated backward, is compared with
    backpropagation through the steps of the solver. Neither is the other's derivative: they agree as the step goes to zero, at
    the order of the solver.

    Args:
        num_steps: T.
        num_rows: B.
        examples: nets of each cell that are asked, of those that the cell names itself.
        draws: random influences of `UORO`.
        sizes: units of the nets whose costs are counted.
        solver_steps: of the net in continuous time, over its five time constants; those of the finest comparison.
    Source:
        Linnainmaa 1976, BIT 16:146-160; Robinson & Fallside 1987; Williams & Zipser 1989, Neural Computation 1(2):270-280;
        Williams & Peng 1990, Neural Computation 2(4):490-501; Schmidhuber 1992, Neural Computation 4(2):243-248; Wan & Beaufays
        1996, Neural Computation 8(1):182-201; Campolucci et al. 1999; Tallec & Ollivier 2018 (from memory)
    Differs:
        `CRBP` is asked with all steps within reach and weights that stay, where it is exact. The net in continuous time
        stands here and not in the catalog.
    """

    id: ClassVar[str] = "gradient-equivalence-suite"
    source: ClassVar[str] = (
        "Williams & Zipser 1989, Neural Computation 1(2):270-280, and the papers named in the docstring"
    )
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("difference_worst", 1e-10, "lower", "the same gradient", "", "theorem"),
        Claim(
            "difference_eprop_elementwise", 1e-10, "lower", "exact where recurrences are element-wise", "", "theorem"
        ),
        Claim("difference_adjoint", 1e-10, "lower", "the same gradient", "continuous time, finest steps", "theorem"),
        Claim("adjoint_order_off_4", 0.3, "lower", "4", "difference against the step, Runge-Kutta", "theorem"),
        Claim("exponent_bptt_off_2", 0.3, "lower", "n^2", "", "theorem"),
        Claim("exponent_hybrid_off_3", 0.3, "lower", "n^3", "", "theorem"),
        Claim("exponent_rtrl_off_4", 0.3, "lower", "n^4", "", "theorem"),
        Claim("uoro_bias_standard_errors", 3.0, "lower", "unbiased", "Tallec & Ollivier 2018", "theorem"),
        Claim("uoro_halved_standard_errors", 10.0, "higher", "", "half of the influence", "theorem", control=True),
        Claim("difference_forgetful", 1e-3, "higher", "", "RTRL that forgets a tenth", "theorem", control=True),
        Claim("difference_truncated", 1e-3, "higher", "", "BPTT(5), which is not exact", "theorem", control=True),
        Claim(
            "difference_adjoint_frozen", 1e-3, "higher", "", "adjoint that holds s(t) fixed", "theorem", control=True
        ),
    )

    num_steps: int = 50
    num_rows: int = 3
    examples: int = 2
    draws: int = 100_000
    sizes: tuple[int, ...] = (16, 32, 64)
    solver_steps: int = 2048

    @classmethod
    def smoke(cls) -> Self:
        """Two cells, few draws."""
        return cls(num_steps=6, num_rows=2, examples=0, draws=400, sizes=(4, 8), solver_steps=32)

    def run(self, log: Log) -> Mapping[str, float]:
        """Agreement, controls, bias, costs."""
        worst: dict[str, float] = {}
        counted: dict[str, int] = {}
        nets = list(self._nets())
        for done, (name, cell) in enumerate(nets):
            log(name, 0.7 * done / len(nets))
            for method, value in self._compare(name, cell).items():
                worst[method] = max(worst.get(method, 0.0), value)
                counted[method] = counted.get(method, 0) + 1
        metrics = {f"difference_{method}": value for method, value in worst.items()}
        metrics |= {f"nets_{method}": float(number) for method, number in counted.items()}
        metrics["difference_worst"] = max(worst.values())
        log("controls", 0.7)
        metrics |= self._controls()
        metrics |= self._continuous()
        log("bias", 0.75)
        metrics |= self._bias()
        log("costs", 0.9)
        metrics |= self._costs()
        log.figure("differences", lambda figure: _draw(figure, worst, counted))
        return metrics

    # --- agreement ---

    def _nets(self) -> Iterator[tuple[str, Cell]]:
        """Random nets of the catalog."""
        kinds: dict[str, Any] = dict(members("cells"))
        for name, kind in kinds.items():
            if not self.examples and name not in ("LSTMCell", "SignalFlowCell"):
                continue
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(zlib.crc32(name.encode()))
                for number, cell in enumerate(kind.examples()):
                    floats = [
                        leaf.dtype is None or leaf.dtype.is_floating_point for leaf in tree.leaves(cell.output_spec)
                    ]
                    learns = any(p.requires_grad for p in cell.parameters())
                    if number < max(1, self.examples) and all(floats) and learns:
                        yield f"{name}-{number}", cell.double().eval()

    def _task(self, cell: Cell, seed: int, *, ragged: bool) -> Chunk:
        """A random stream with resets and weights; its rows end at different steps, if ``ragged``."""
        generator = torch.Generator().manual_seed(seed)
        lead = (self.num_steps, self.num_rows)
        reset = torch.rand(lead, generator=generator) < 0.05
        reset[0] = True  # so that initial values that are learned are reached
        lengths = torch.randint(self.num_steps // 2, self.num_steps + 1, (self.num_rows,), generator=generator)
        weights = torch.rand(lead, generator=generator, dtype=torch.float64)

        def values(spec: Tree) -> Tree:
            return tree.map(lambda leaf: _values(leaf, lead, generator), spec)

        controls = Controls(lengths=lengths if ragged else None, reset=reset)
        return Chunk(values(cell.input_spec), values(cell.output_spec), weights, controls)

    def _compare(self, name: str, cell: Cell) -> dict[str, float]:
        """Differences of all methods on one net."""
        loss, found = _Squares(), dict[str, float]()
        ways: dict[str, LearningRule[Any]] = {
            "bptt": BPTT(),
            "checkpointed": BPTT(Checkpointed()),
            "rtrl": RTRL(),
            "hybrid": HybridRTRL(),
            "snap": SnAp(1000),
            "bptt_h": TruncatedBPTT(),
            "bptt_h_h": TruncatedBPTT(10, self.num_steps + 10),
            "signal_flow": SignalFlowAdjoint(),
            "crbp": CRBP(),
        }
        for ragged in (True, False):
            chunk = self._task(cell, zlib.crc32(name.encode()), ragged=ragged)
            if not _total(cell, chunk, loss).requires_grad:  # units that compete have no gradient
                return {}
            wanted = _reference(cell, chunk, loss)
            for way, rule in ways.items():
                if rule.supports(cell, loss) is None and not (ragged and way == "bptt_h_h"):
                    value = _difference(_asked(rule, cell, chunk, loss), wanted)
                    found[way] = max(found.get(way, 0.0), value)
            if not ragged:
                forward = _forward(cell, chunk, loss, wanted)
                if forward is not None:
                    found["forward_ad"] = forward
        return found

    # --- controls, bias, costs ---

    def _controls(self) -> dict[str, float]:
        """What is exact for element-wise recurrences alone, and what is not exact."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            loose, dense = Readout(IndRNNCell(2, 5), 2).double(), Readout(ElmanCell(2, 5), 2).double()
        found = {}
        for name, rule, cell in (
            ("eprop_elementwise", EProp(), loose),
            ("truncated", TruncatedBPTT(5), dense),
            ("forgetful", RTRL(), dense),
        ):
            chunk = self._task(cell, 1, ragged=False)._replace(controls=Controls())
            wanted = _reference(cell, chunk, _Squares())
            if name == "forgetful":
                direction = _forgetful(cell, chunk)
            else:
                direction = _asked(rule, cell, chunk, _Squares())
            found[f"difference_{name}"] = _difference(direction, wanted)
        return found

    def _continuous(self) -> dict[str, float]:
        """The adjoint equation against backpropagation through the solver, at three sizes of the step."""
        net, steps = _Differential(2, 6), [self.solver_steps // n for n in (8, 4, 1)]
        off = [_difference(net.adjoint(n), net.backpropagated(n)) for n in steps]
        frozen = _difference(net.adjoint(steps[-1], frozen=True), net.backpropagated(steps[-1]))
        order = math.log(off[0] / off[1]) / math.log(steps[1] / steps[0])
        return {
            "difference_adjoint": off[-1],
            "difference_adjoint_frozen": frozen,
            "adjoint_order": order,
            "adjoint_order_off_4": abs(order - 4),
        }

    def _bias(self) -> dict[str, float]:
        """How far the mean of UORO's directions lies beside the gradient, along the gradient, in standard errors."""
        bias, halved = 0.0, math.inf
        for kind in (ElmanCell, LSTMCell):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(1)
                cell = kind(2, 3).double()
            rows = max(1, self.draws // _BATCHES)
            generator = torch.Generator().manual_seed(2)
            xs, targets = (torch.randn(5, 1, n, generator=generator, dtype=torch.float64) for n in (2, 3))
            one = Chunk(xs, targets)
            wanted = _reference(cell, one, MeanSquaredError())
            many = Chunk(xs.expand(-1, rows, -1), targets.expand(-1, rows, -1))
            length = sum(float(g.square().sum()) for g in wanted.values())
            along = []
            for seed in range(_BATCHES):
                rule = UORO()
                direction = rule.step(cell, rule.init(cell, rows, seed=seed), many, MeanSquaredError())[1].direction
                along.append(sum(float((direction[n] * g).sum()) for n, g in wanted.items()) / rows / length)
            at_once = TruncatedBPTT(1)
            direct = at_once.step(cell, at_once.init(cell, 1), one, MeanSquaredError())[1].direction
            own = sum(float((direct[n] * g).sum()) for n, g in wanted.items()) / length
            without = [own + (a - own) / 2 for a in along]
            bias = max(bias, _standard_errors(along))
            halved = min(halved, _standard_errors(without))
        return {"uoro_bias_standard_errors": bias, "uoro_halved_standard_errors": halved}

    def _costs(self) -> dict[str, float]:
        """Exponents of the multiplications per step."""
        rules: dict[str, tuple[LearningRule[Any], int]] = {
            "bptt": (BPTT(engine=Loop()), 2),
            "hybrid": (HybridRTRL(), 3),
            "rtrl": (RTRL(), 4),
        }
        found = {}
        for name, (rule, power) in rules.items():
            counts = []
            for size in self.sizes:
                cell = FullyRecurrentCell(1, size, activation="tanh").double()
                steps = 4 if name == "rtrl" else 2 * size
                chunk = Chunk(torch.zeros(steps, 1, 1).double(), torch.zeros(steps, 1, size).double())
                counts.append(multiplications(rule, cell, chunk))
            found[f"exponent_{name}"] = exponent(self.sizes, counts)
            found[f"exponent_{name}_off_{power}"] = abs(found[f"exponent_{name}"] - power)
        return found


def _values(leaf: Leaf, lead: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Random numbers of a form."""
    shape = (*lead, *(int(n) for n in leaf.shape))
    if leaf.dtype == torch.bool:
        return torch.rand(shape, generator=generator) < 0.5
    if leaf.dtype is not None and not leaf.dtype.is_floating_point:
        low, high = int(leaf.low or 0), int(8 if leaf.high is None else leaf.high)
        return torch.randint(low, high, shape, generator=generator, dtype=leaf.dtype)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _asked(rule: LearningRule[Any], cell: Cell, chunk: Chunk, loss: Loss) -> dict[str, Tensor]:
    """The direction of a whole stream at once."""
    rows = int(tree.leaves(chunk.xs)[0].shape[1])
    return rule.step(cell, rule.init(cell, rows), chunk, loss)[1].direction


def _total(cell: Cell, chunk: Chunk, loss: Loss) -> Tensor:
    """The weighted sum of the losses, through the readable loop."""
    ys, _ = unroll(cell, chunk.xs, None, chunk.controls, engine=Loop())
    each = loss.per_step(ys, chunk.targets)
    each = each if chunk.weights is None else each * chunk.weights
    alive = chunk.controls.alive(len(each))
    return (each if alive is None else torch.where(alive, each, 0.0)).sum()


def _reference(cell: Cell, chunk: Chunk, loss: Loss) -> dict[str, Tensor]:
    """Reverse differentiation by torch."""
    named = {name: p for name, p in cell.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(_total(cell, chunk, loss), list(named.values()), allow_unused=True)
    return {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(named.items(), found)}


class _Total(torch.nn.Module):
    """The sum as a function of the parameters."""

    def __init__(self, cell: Cell, chunk: Chunk, loss: Loss) -> None:
        super().__init__()
        self.cell, self.chunk, self.loss = cell, chunk, loss

    def forward(self) -> Tensor:
        return _total(self.cell, self.chunk, self.loss)


def _forward(cell: Cell, chunk: Chunk, loss: Loss, wanted: Mapping[str, Tensor]) -> float | None:
    """Forward differentiation along three random directions; None for an operation of torch's that has none."""
    module, generator, worst = _Total(cell, chunk, loss), torch.Generator().manual_seed(0), 0.0
    values = {f"cell.{name}": p.detach() for name, p in cell.named_parameters() if name in wanted}
    for _ in range(3):
        tangents = {n: torch.randn(v.shape, generator=generator, dtype=v.dtype) for n, v in values.items()}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, at the first forward derivative
                found = jvp(lambda v: functional_call(module, v, ()), (values,), (tangents,))[1]
        except (NotImplementedError, RuntimeError):
            return None
        terms = [(wanted[n.removeprefix("cell.")] * t).flatten() for n, t in tangents.items()]
        size = float(torch.cat(terms).abs().sum())
        if size:
            worst = max(worst, abs(float(found) - float(torch.cat(terms).sum())) / size)
    return worst


def _difference(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The largest difference of an element, as a part of the largest element of its parameter.

    A parameter whose gradient is a billionth of the largest counts as that large: it is made of rounding.
    """
    largest = max([0.0, *(float(value.abs().max()) for value in wanted.values() if value.numel())])
    worst = 0.0
    for name, value in wanted.items():
        if value.numel() and largest:
            size = max(float(value.abs().max()), 1e-9 * largest)
            worst = max(worst, float((found[name] - value).abs().max()) / size)
    return worst


def _forgetful(cell: Cell, chunk: Chunk) -> dict[str, Tensor]:
    """RTRL whose influence shrinks by a tenth at every step."""
    rule, total = RTRL(), dict[str, Tensor]()
    carry = rule.init(cell, int(tree.leaves(chunk.xs)[0].shape[1]))
    assert chunk.weights is not None
    for t in range(len(chunk.weights)):
        part = Chunk(chunk.xs[t : t + 1], chunk.targets[t : t + 1], chunk.weights[t : t + 1])
        carry, estimate = rule.step(cell, carry, part, _Squares())
        carry = carry._replace(influence=tuple(0.9 * block for block in carry.influence))
        total = {n: total.get(n, 0) + d for n, d in estimate.direction.items()}
    return total


class _Differential:
    """A net in continuous time, and two ways to the gradient of an integral along it.

        ds/dt = -s + tanh(W s + V u(t) + b),   E = 1/2 int |s - target(t)|^2 dt,   0 <= t <= 5

    The adjoint equation is  da/dt = -a df/ds - (s - target),  a(5) = 0,  and dE/dtheta = int a df/dtheta dt.
    """

    span = 5.0

    def __init__(self, input_size: int, hidden_size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        kind: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
        self.parameters = {
            "W": 1.5 * torch.randn(hidden_size, hidden_size, **kind) / hidden_size**0.5,
            "V": torch.randn(hidden_size, input_size, **kind),
            "b": torch.randn(hidden_size, **kind),
        }
        self.start = torch.randn(hidden_size, **kind)
        self.phase = torch.rand(input_size + hidden_size, **kind) * 6

    def _waves(self, t: float) -> tuple[Tensor, Tensor]:
        """u(t) and target(t)."""
        waves = torch.sin(2 * t + self.phase)
        count = self.parameters["V"].shape[1]
        return waves[:count], waves[count:]

    def _flow(self, t: float, s: Tensor, p: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """ds/dt, dE/dt."""
        u, target = self._waves(t)
        return -s + torch.tanh(p["W"] @ s + p["V"] @ u + p["b"]), 0.5 * (s - target).square().sum()

    def _walk(self, num_steps: int, p: Mapping[str, Tensor]) -> tuple[list[Tensor], Tensor]:
        """Classical Runge-Kutta: s at the ends of all steps, and E."""
        h, s, states = self.span / num_steps, self.start, [self.start]
        total = torch.zeros((), dtype=torch.float64)
        for n in range(num_steps):
            k1, e1 = self._flow(n * h, s, p)
            k2, e2 = self._flow((n + 0.5) * h, s + 0.5 * h * k1, p)
            k3, e3 = self._flow((n + 0.5) * h, s + 0.5 * h * k2, p)
            k4, e4 = self._flow((n + 1) * h, s + h * k3, p)
            s = s + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            total = total + h / 6 * (e1 + 2 * e2 + 2 * e3 + e4)
            states.append(s)
        return states, total

    def backpropagated(self, num_steps: int) -> dict[str, Tensor]:
        """Reverse differentiation of the solver's steps."""
        named = {name: p.clone().requires_grad_() for name, p in self.parameters.items()}
        _, total = self._walk(num_steps, named)
        return dict(zip(named, torch.autograd.grad(total, list(named.values()))))

    def adjoint(self, num_steps: int, *, frozen: bool = False) -> dict[str, Tensor]:
        """The adjoint equation and its integral, by a solver of their own, backward from the last state.

        A step back goes over two steps of the states: Runge-Kutta asks for the state in the middle.
        """
        p = self.parameters
        states, _ = self._walk(2 * num_steps, p)
        h, size = self.span / num_steps, self.start.numel()

        def slope(place: int, both: Tensor) -> Tensor:
            """d(a, gradient)/dt at the state of that number."""
            a, s = both[:size], states[place]
            u, target = self._waves(place * h / 2)
            through = a * (1 - torch.tanh(p["W"] @ s + p["V"] @ u + p["b"]).square())
            back = -a if frozen else -a + through @ p["W"]
            parts = (-back - (s - target), -torch.outer(through, s).flatten(), -torch.outer(through, u).flatten())
            return torch.cat([*parts, -through])

        both = torch.zeros(size + sum(v.numel() for v in p.values()), dtype=torch.float64)
        for n in range(2 * num_steps, 0, -2):
            k1 = slope(n, both)
            k2 = slope(n - 1, both - 0.5 * h * k1)
            k3 = slope(n - 1, both - 0.5 * h * k2)
            k4 = slope(n - 2, both - h * k3)
            both = both - h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        parts = both[size:].split([v.numel() for v in p.values()])
        return {name: part.reshape(v.shape) for (name, v), part in zip(p.items(), parts)}


def _standard_errors(along: list[float]) -> float:
    """How far the mean lies beside one."""
    values = torch.tensor(along, dtype=torch.float64)
    return float((values.mean() - 1).abs() / (values.std() / len(along) ** 0.5))


def _draw(figure: Any, worst: dict[str, float], counted: dict[str, int]) -> None:
    """The largest difference of every method."""
    axis = figure.subplots()
    names = sorted(worst, key=worst.__getitem__)
    axis.barh(range(len(names)), [max(worst[n], 1e-17) for n in names], left=1e-17, color="#0077bb")
    axis.axvline(1e-10, color="#cc3311", linewidth=1)
    axis.set(xscale="log", xlim=(1e-17, 1e-9), xlabel="largest relative difference to reverse differentiation")
    axis.set_yticks(range(len(names)), [f"{n} ({counted[n]} nets)" for n in names])
    axis.set_title("Exact methods agree", loc="left")
