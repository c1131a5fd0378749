"""The continuous Hopfield network: a circuit of amplifiers, whose outputs settle at stored patterns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor

from ..core.cell import RK4, Euler
from ..core.checks import check_choice, check_positive, sentence
from ..core.memory import EnergyMemory, ErasableMemory, Recall
from .graded import EDGE, Graded, Response
from .patterns import check_patterns, random_signs

Integrator = Literal["euler", "rk4", "adaptive"]


class HopfieldCircuit(NamedTuple):
    """What a circuit is wired to do.

    Args:
        conductances: (N, N) float64 T, symmetric; negative ones are connections from an inverting output.
        currents: (N,) float64 I, from outside.
    """

    conductances: Tensor
    currents: Tensor


@dataclass(frozen=True)
class ContinuousHopfield(EnergyMemory[HopfieldCircuit], ErasableMemory[HopfieldCircuit]):
    """Continuous Hopfield network: N amplifiers with capacity and resistance at their inputs, wired to each other:

        C du/dt = -u / R + T V + I            V = g(u), between -1 and +1, slope `gain` at zero
        E(V) = -1/2 V.T V - I.V + 1/R sum_i integral_0^{V_i} g^-1(v) dv
        dE/dt = -C sum_i (g^-1)'(V_i) (dV_i/dt)^2 <= 0

    Patterns are stored by Hebb's rule, T = 1/N sum_mu xi_mu xi_mu^T without its diagonal. A high gain makes outputs of -1 and
    +1, and the stable states those of the binary network; a gain below the inverse of T's largest eigenvalue leaves one, at
    zero. Any other circuit is a state as well: ``HopfieldCircuit(T, I)`` with symmetric T.

    Args:
        size: N, amplifiers.
        gain: slope of the response at zero, 1/volt.
        resistance: R, ohm.
        capacitance: C, farad.
        response: "tanh", or "arctan" as in the paper's figures.
        integrator: "euler", "rk4" (fixed steps) or "adaptive" (SciPy's RK45, each cue by itself).
        dt_s: the step of the fixed ones; None takes the longest that is proved safe (see Differs).
        max_time_s: a read ends here if nothing stands still.
        tolerance: a cue stands still when no output is further than this from g(R (T V + I)).
    State:
        HopfieldCircuit: T (N, N) and I (N,).
    Raises:
        ValueError: a size below 1; a gain, resistance, capacitance, time or tolerance that is not positive; an unknown
            response or integrator; a circuit that is not symmetric; a cue beyond -1 and +1.
    Source:
        Hopfield 1984, Neurons with graded response, PNAS 81:3088-3092, doi:10.1073/pnas.81.10.3088 (equations as in copies
        of it)
    Differs:
        Euler's step is a mirror descent on E, whose mirror is the integral term: for dt <= R C / (1 + gain R max(0, -lambda)),
        lambda the smallest eigenvalue of T, E falls at every step, however long the run. ``dt_s=None`` takes that bound.
        RK4 has the same step; it follows the flow, along which E falls, without a proof for the steps. Computed in float64
        whatever the cues are. A cue at a corner begins at a voltage of g^-1(1 - 1e-12).
    Cost:
        2 N^2 flops for each cue and Euler step, four times that for RK4; a read begins with the eigenvalues of T.
    Example:
        >>> memory = ContinuousHopfield(64, gain=50.0)
        >>> patterns = memory.draw(3, torch.Generator().manual_seed(0))
        >>> circuit = memory.write(memory.empty(), patterns)
        >>> cue = patterns.clone()
        >>> cue[:, :10] *= -1
        >>> bool((memory.read(circuit, cue).value - patterns).abs().max() < 1e-6)
        True
    """

    takes_unknown: ClassVar[bool] = True
    source: ClassVar[str] = "Hopfield 1984, PNAS 81:3088-3092, doi:10.1073/pnas.81.10.3088"

    size: int = 64
    gain: float = 20.0
    resistance: float = 1.0
    capacitance: float = 1.0
    response: Response = "tanh"
    integrator: Integrator = "euler"
    dt_s: float | None = None
    max_time_s: float = 200.0
    tolerance: float = 1e-8

    def __post_init__(self) -> None:
        where = type(self).__name__
        check_positive(where, size=self.size)
        check_choice(where, "response", self.response, ("tanh", "arctan"))
        check_choice(where, "integrator", self.integrator, ("euler", "rk4", "adaptive"))
        for name in ("gain", "resistance", "capacitance", "dt_s", "max_time_s", "tolerance"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(sentence(where, name, "positive and finite", value))

    @classmethod
    def examples(cls) -> Iterator[Self]:
        """Both fixed steps; other resistors and capacitors."""
        yield cls(32, tolerance=1e-6)
        yield cls(24, gain=10.0, integrator="rk4", resistance=2.0, capacitance=0.5, tolerance=1e-4)

    @property
    def key_size(self) -> int:
        """N."""
        return self.size

    @property
    def amplifier(self) -> Graded:
        """g."""
        return Graded(self.gain, self.response)

    def capacity(self) -> float:
        """Patterns that are recalled with few wrong units, at high gain: 0.138 N, that of the binary network."""
        return 0.138 * self.size

    def draw(self, num_patterns: int, generator: torch.Generator | None = None) -> Tensor:
        """(M, N) float64 of -1 and +1."""
        return random_signs(num_patterns, self.size, generator).double()

    def empty(self) -> HopfieldCircuit:
        """A circuit without connections and currents."""
        return HopfieldCircuit(torch.zeros(self.size, self.size).double(), torch.zeros(self.size).double())

    def write(self, state: HopfieldCircuit, keys: Tensor, values: Tensor | None = None) -> HopfieldCircuit:
        """Add Hebb's conductances of patterns (M, N) of -1 and +1."""
        return state._replace(conductances=state.conductances + self._hebb(keys))

    def erase(self, state: HopfieldCircuit, keys: Tensor, values: Tensor | None = None) -> HopfieldCircuit:
        """Take them away again."""
        return state._replace(conductances=state.conductances - self._hebb(keys))

    def energy(self, state: HopfieldCircuit, value: Tensor) -> Tensor:
        """(B,) E of outputs (B, N)."""
        check_patterns(type(self).__name__, "value", value, self.size)
        v = value.double().clamp(-EDGE, EDGE)
        pairs = -0.5 * ((v @ state.conductances) * v).sum(-1)
        height = pairs - v @ state.currents + self.amplifier.stored(v).sum(-1) / self.resistance
        return height.to(value.dtype)

    def derivative(self, state: HopfieldCircuit, voltage: Tensor) -> Tensor:
        """(B, N) du/dt of voltages (B, N)."""
        current = self.amplifier.output(voltage) @ state.conductances + state.currents
        return (current - voltage / self.resistance) / self.capacitance

    def safe_dt_s(self, state: HopfieldCircuit) -> float:
        """The longest Euler step under which the energy cannot rise, whatever the voltages."""
        lowest = float(torch.linalg.eigvalsh(state.conductances)[0])
        return self.resistance * self.capacitance / (1 + self.gain * self.resistance * max(0.0, -lowest))

    def read(self, state: HopfieldCircuit, cue: Tensor) -> Recall:
        """Outputs (B, N) at which the circuit settles, from outputs ``cue`` (B, N) in [-1, 1]."""
        value, steps, converged, _ = self._run(state, cue, keep=False)
        return Recall(value, steps, converged)

    def trajectory(self, state: HopfieldCircuit, cue: Tensor) -> Tensor:
        """(T, B, N) outputs after every step; rows that stand still are repeated."""
        return torch.stack([cue, *self._run(state, cue, keep=True)[3]])

    def _run(self, state: HopfieldCircuit, cue: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        self._check(state, cue)
        start = self.amplifier.voltage(cue.double())
        if self.integrator == "adaptive" and len(cue):
            return self._adaptive(state, cue, start, keep)
        dt_s = self.safe_dt_s(state) if self.dt_s is None else self.dt_s
        solver = Euler() if self.integrator == "euler" else RK4()
        gap = torch.tensor(dt_s, dtype=torch.float64, device=cue.device)
        u = start
        steps = torch.zeros(len(cue), dtype=torch.int64, device=cue.device)
        done = self._still(state, u)
        path: list[Tensor] = []
        for _ in range(math.ceil(self.max_time_s / dt_s)):
            if bool(done.all()):
                break
            new = solver.integrate(lambda voltage: self.derivative(state, voltage), u, gap.expand(len(cue)))
            u = torch.where(done[:, None], u, new)
            steps += ~done
            done = done | self._still(state, u)
            if keep:
                path.append(self._outputs(cue, u, steps))
        return self._outputs(cue, u, steps), steps, done, path

    def _outputs(self, cue: Tensor, voltage: Tensor, steps: Tensor) -> Tensor:
        """The outputs; the cue itself where nothing had to move."""
        return torch.where(steps[:, None] == 0, cue, self.amplifier.output(voltage).to(cue.dtype))

    def _adaptive(
        self, state: HopfieldCircuit, cue: Tensor, start: Tensor, keep: bool
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        from scipy.integrate import solve_ivp

        def slope(_: float, voltage: object) -> object:
            return self.derivative(state, torch.as_tensor(voltage)[None])[0].numpy()

        def distance(_: float, voltage: object) -> float:
            return float(self._distance(state, torch.as_tensor(voltage)[None])) - self.tolerance

        distance.terminal, distance.direction = True, -1  # type: ignore[attr-defined]
        ways: list[Tensor] = []
        still = self._still(state, start)
        for row, done in zip(start, still.tolist()):
            if done:
                ways.append(row[None])
                continue
            found = solve_ivp(slope, (0.0, self.max_time_s), row.numpy(), rtol=1e-8, atol=1e-10, events=distance)
            ways.append(torch.as_tensor(found.y.T))
        steps = torch.tensor([len(way) - 1 for way in ways], dtype=torch.int64)
        last = torch.stack([way[-1] for way in ways])
        path: list[Tensor] = []
        for t in range(1, int(steps.max()) + 1 if keep else 1):
            now = torch.stack([way[min(t, len(way) - 1)] for way in ways])
            path.append(self._outputs(cue, now, steps))
        return self._outputs(cue, last, steps), steps, self._distance(state, last) <= 2 * self.tolerance, path

    def _distance(self, state: HopfieldCircuit, voltage: Tensor) -> Tensor:
        """(B,) how far the outputs are from where they would stand still."""
        output = self.amplifier.output(voltage)
        wanted = self.amplifier.output(self.resistance * (output @ state.conductances + state.currents))
        return (output - wanted).abs().amax(-1)

    def _still(self, state: HopfieldCircuit, voltage: Tensor) -> Tensor:
        return self._distance(state, voltage) <= self.tolerance

    def _hebb(self, patterns: Tensor) -> Tensor:
        check_patterns(type(self).__name__, "keys", patterns, self.size, self.alphabet)
        product = patterns.double().T @ patterns.double() / self.size
        return product - torch.diag(product.diagonal())

    def _check(self, state: HopfieldCircuit, cue: Tensor) -> None:
        where = type(self).__name__
        check_patterns(where, "cue", cue, self.size)
        if cue.numel() and float(cue.abs().max()) > 1:
            raise ValueError(sentence(where, "cue", "in [-1, 1]", float(cue.abs().max())))
        gap = float((state.conductances - state.conductances.T).abs().max())
        if gap > 1e-9 * max(1.0, float(state.conductances.abs().max())):
            raise ValueError(sentence(where, "conductances", "symmetric", f"a difference of {gap:.3g}"))
