"""Amit, Gutfreund & Sompolinsky 1985: how many patterns a Hopfield network holds, cold and warm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..core import Claim, Experiment, Log
from ..memories import Hopfield, StochasticHopfield


class Retrieval(NamedTuple):
    """What the replica-symmetric theory says of one load and temperature: the overlap m with the pattern, q and r."""

    m: float
    q: float
    r: float


def theory(load: float, temperature: float, num_steps: int = 1000) -> Retrieval:
    """The retrieval solution of the replica-symmetric equations, found by iteration from m = 1; m = 0 where there is none.

    m = <tanh b(m + sqrt(a r) z)>,  q = <tanh^2 b(m + sqrt(a r) z)>,  r = q / (1 - b (1 - q))^2,  z normal, b = 1 / T
    """
    z = torch.linspace(-8, 8, 401, dtype=torch.float64)
    weights = torch.exp(-0.5 * z**2)
    weights /= weights.sum()
    m, q, r = 1.0, 1.0, 1.0
    for _ in range(num_steps):
        if temperature == 0:
            width = math.sqrt(2 * load * r)
            new_m, slope = math.erf(m / width), 2 / math.sqrt(math.pi) / width * math.exp(-((m / width) ** 2))
            new_q, lost = 1.0, slope
        else:
            inner = torch.tanh((m + math.sqrt(load * r) * z) / temperature)
            new_m, new_q = float((weights * inner).sum()), float((weights * inner**2).sum())
            lost = (1 - new_q) / temperature
        if lost >= 1.0 or new_m < 1e-3:
            return Retrieval(0.0, new_q, float("inf"))
        new_r = new_q / (1 - lost) ** 2
        if abs(new_m - m) + abs(new_r - r) < 1e-12:
            break
        m, q, r = new_m, new_q, new_r
    return Retrieval(m, q, r)


def _last(exists: Any, low: float, high: float) -> float:
    """Where a solution that exists at ``low`` and not at ``high`` ends."""
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (middle, high) if exists(middle) else (low, middle)
    return low


def crossing(loads: Tensor, sizes: Tensor, kept: Tensor, counts: Tensor) -> tuple[float, float]:
    """The load at which the share of kept patterns does not depend on N, and the exponent of the best collapse.

    probit(share) = a + b (load_c - load) N^x, by weighted least squares for each x of a grid.

    Args:
        loads: (P,) measured points.
        sizes: (P,) N of each.
        kept: (P,) share of patterns that stay.
        counts: (P,) patterns asked.
    """
    share = ((kept * counts + 0.5) / (counts + 1)).clamp(1e-4, 1 - 1e-4)
    probit = math.sqrt(2) * torch.erfinv(2 * share - 1)
    density = torch.exp(-0.5 * probit**2) / math.sqrt(2 * math.pi)
    weight = (counts * density**2 / (share * (1 - share))).sqrt()
    best = (math.inf, 0.0, 0.0)
    for x in torch.linspace(0.2, 1.0, 81).tolist():
        scaled = sizes**x
        design = torch.stack([torch.ones_like(loads), scaled, loads * scaled], 1) * weight[:, None]
        found = torch.linalg.lstsq(design, (probit * weight)[:, None]).solution[:, 0]
        miss = float(((design @ found - probit * weight) ** 2).sum())
        best = min(best, (miss, float(-found[1] / found[2]), x))
    return best[1], best[2]


@dataclass(frozen=True)
class Amit1985Capacity(Experiment):
    """Above a load of about 0.14 patterns a unit a Hopfield network forgets everything at once.

    Nets of +-1 units with Hebbian couplings start at a stored pattern. Cold: which share of the patterns keeps an overlap above
    ``kept_overlap``, for growing nets; where the curves of different N cross is the critical load. Warm: the overlap under
    Glauber dynamics against replica-symmetric theory, within the region of retrieval and beyond it.

    Args:
        sizes: N.
        num_nets: nets of each size for each load.
        num_asked: patterns asked of each net.
        loads: patterns a unit.
        kept_overlap: above it a pattern counts as kept; overlaps are near 0.97 or near 0.35, few lie between.
        num_bootstraps: resamplings of the nets for the error of the critical load.
        warm_size: N of the warm nets.
        warm_loads: their loads.
        num_warm: patterns asked of each.
        num_sweeps: sweeps of the warm dynamics; overlaps are the mean over the second half.
    Source:
        Amit, Gutfreund & Sompolinsky 1985, Phys. Rev. Lett. 55:1530-1533, doi:10.1103/PhysRevLett.55.1530; 1987, Annals of
        Physics 173:30-67 (numbers from memory)
    Differs:
        The critical load is found by a collapse of the shares, not from the mean overlap. Dynamics takes units in turn.
    """

    id: ClassVar[str] = "amit-1985-capacity"
    source: ClassVar[str] = "Amit, Gutfreund & Sompolinsky 1985, Phys. Rev. Lett. 55:1530-1533"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim("critical_load", 0.136, "higher", "0.138; 0.144 with broken symmetry", "abstract", "from memory"),
        Claim("critical_load", 0.146, "lower", "0.138; 0.144 with broken symmetry", "abstract", "from memory"),
        Claim("overlap_at_013", 0.96, "higher", "0.967 at 0.138, 1.6 % of the bits wrong", "text", "from memory"),
        Claim("warm_off_theory_worst", 0.03, "lower", "", "overlaps at 0.7 of the boundary's temperature", "theorem"),
        Claim("kept_at_020", 0.1, "lower", "", "load 0.2, the largest nets", control=True),
        Claim("warm_beyond_worst", 0.5, "lower", "0", "overlaps at 1.3 of the boundary's temperature", control=True),
    )

    sizes: tuple[int, ...] = (500, 1000, 2000, 4000)
    num_nets: tuple[int, ...] = (160, 80, 40, 16)
    num_asked: int = 150
    loads: tuple[float, ...] = (0.126, 0.13, 0.134, 0.138, 0.142, 0.146, 0.15, 0.156)
    kept_overlap: float = 0.8
    num_bootstraps: int = 200
    warm_size: int = 4000
    warm_loads: tuple[float, ...] = (0.01, 0.03, 0.06, 0.1)
    num_warm: int = 10
    num_sweeps: int = 100

    @classmethod
    def smoke(cls) -> Self:
        """Small nets."""
        return cls(
            sizes=(60, 120),
            num_nets=(3, 2),
            num_asked=10,
            loads=(0.1, 0.13, 0.16),
            num_bootstraps=3,
            warm_size=200,
            warm_loads=(0.03,),
            num_warm=2,
            num_sweeps=6,
        )

    def run(self, log: Log) -> Mapping[str, float]:
        """Theory, cold nets, warm nets."""
        log("theory", 0.0)
        critical = _last(lambda load: theory(load, 0.0).m > 0.5, 0.05, 0.3)
        cold = self._cold(log)
        points, means = [], {}
        for (size, load), nets in cold.items():
            kept = [float((overlaps > self.kept_overlap).double().mean()) for overlaps in nets]
            points.append((load, float(size), torch.tensor(kept, dtype=torch.float64), float(nets[0].numel())))
            means[size, load] = float(torch.cat(nets).mean())
        found, exponent = self._critical(points)
        generator = torch.Generator().manual_seed(1)
        again = torch.tensor(
            [
                self._critical(
                    [
                        (a, n, kept[torch.randint(0, len(kept), kept.shape, generator=generator)], c)
                        for a, n, kept, c in points
                    ]
                )[0]
                for _ in range(self.num_bootstraps)
            ]
        )
        largest = self.sizes[-1]
        near = min(self.loads, key=lambda load: abs(load - 0.13))
        beyond = self._net(largest, 0.2, seed=999)
        warm = self._warm(log)
        log("warm nets", 1.0)
        log.figure("overlap", lambda figure: _draw(figure, self, cold, warm, critical))
        return {
            "critical_load": found,
            "critical_load_error": float(again.std()),
            "critical_load_theory": critical,
            "overlap_at_critical_theory": theory(0.9995 * critical, 0.0).m,
            "collapse_exponent": exponent,
            "overlap_at_013": means[largest, near],
            "overlap_at_013_theory": theory(near, 0.0).m,
            "kept_at_020": float((beyond > self.kept_overlap).double().mean()),
            "warm_off_theory_worst": max(abs(inside - said) for _, _, inside, said, _ in warm),
            "warm_beyond_worst": max(outside for *_, outside in warm),
            **{f"boundary_at_{load:g}": boundary for load, boundary, *_ in warm},
        }

    def _critical(self, points: list[tuple[float, float, Tensor, float]]) -> tuple[float, float]:
        loads, sizes, kept, counts = zip(*((a, n, float(k.mean()), c * len(k)) for a, n, k, c in points))
        return crossing(*(torch.tensor(column, dtype=torch.float64) for column in (loads, sizes, kept, counts)))

    def _cold(self, log: Log) -> dict[tuple[int, float], list[Tensor]]:
        """Overlaps of the patterns that each net was asked."""
        found: dict[tuple[int, float], list[Tensor]] = {}
        total = sum(count * size**2 for size, count in zip(self.sizes, self.num_nets))
        done = 0
        for size, count in zip(self.sizes, self.num_nets):
            for net in range(count):
                for load in self.loads:
                    found.setdefault((size, load), []).append(self._net(size, load, seed=net))
                done += size**2
                log(f"N = {size}, net {net + 1} of {count}", 0.8 * done / total)
        return found

    def _net(self, size: int, load: float, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * seed + round(1000 * load))
        memory = Hopfield(size)
        patterns = memory.draw(round(load * size), generator)
        state = memory.write(memory.empty(), patterns)
        asked = patterns[: self.num_asked]
        return (memory.read(state, asked).value * asked).mean(1)

    def _warm(self, log: Log) -> list[tuple[float, float, float, float, float]]:
        """(load, temperature of the boundary, overlap within, overlap that theory says, overlap beyond)."""
        found = []
        for i, load in enumerate(self.warm_loads):
            log("warm nets", 0.8 + 0.2 * i / len(self.warm_loads))
            boundary = _last(lambda t, load=load: theory(load, t).m > 0.1, 0.01, 1.2)
            overlaps = []
            for temperature in (0.7 * boundary, 1.3 * boundary):
                memory = StochasticHopfield(self.warm_size, temperature=temperature, num_sweeps=self.num_sweeps)
                patterns = memory.draw(round(load * self.warm_size), torch.Generator().manual_seed(i))
                asked = patterns[: self.num_warm]
                path = memory.trajectory(memory.write(memory.empty(), patterns), asked)
                overlaps.append(float((path[self.num_sweeps // 2 :] * asked).mean()))
            found.append((load, boundary, overlaps[0], theory(load, 0.7 * boundary).m, overlaps[1]))
        return found


def _draw(figure: Any, setting: Amit1985Capacity, cold: Mapping[Any, Any], warm: list[Any], critical: float) -> None:
    left, right = figure.subplots(1, 2)
    for size in setting.sizes:
        kept = [float((torch.cat(cold[size, load]) > setting.kept_overlap).double().mean()) for load in setting.loads]
        left.plot(setting.loads, kept, "o-", ms=3, lw=1, label=f"N = {size}")
    left.axvline(critical, color="0.5", lw=0.8, ls=":", label="theory, 0.138")
    left.set(xlabel="load, patterns a unit", ylabel="share of patterns that stay", ylim=(0, 1.02))
    left.set_title("At temperature 0", loc="left", fontsize=10)
    left.legend(fontsize=7, frameon=False)
    loads = [load for load, *_ in warm]
    grid = torch.linspace(0.0, critical * 0.98, 9).tolist()
    edge = [_last(lambda t, load=load: theory(max(load, 1e-6), t).m > 0.1, 0.005, 1.2) for load in grid]
    right.plot(grid, edge, color="0.4", lw=1, label="boundary of retrieval, theory")
    for load, boundary, inside, _, outside in warm:
        right.annotate(f"{inside:.2f}", (load, 0.7 * boundary), fontsize=7, xytext=(4, 0), textcoords="offset points")
        right.annotate(f"{outside:.2f}", (load, 1.3 * boundary), fontsize=7, xytext=(4, 0), textcoords="offset points")
    right.plot(loads, [0.7 * b for _, b, *_ in warm], "o", ms=4, color="#0077bb", label="measured overlap")
    right.plot(loads, [1.3 * b for _, b, *_ in warm], "o", ms=4, color="#ee7733")
    right.set(xlabel="load, patterns a unit", ylabel="temperature", ylim=(0, 1.35))
    right.set_title("Warm", loc="left", fontsize=10)
    right.legend(fontsize=7, frameon=False)
