"""Rakkiyappan et al. 2015: bidirectional memories with Markov jumps, delays, noise and impulses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..core import Claim, Experiment, Log
from ..memories.jump_bam import Certificate, JumpBAM, JumpPaths, second_moment_rate

CONTROL = "strong connections (control)"


class _Found(NamedTuple):
    name: str
    system: JumpBAM
    certificate: Certificate
    norms: Certificate
    paths: JumpPaths

    @property
    def slope(self) -> float:
        """Of log E |z|^2 against time, a straight line through the later half."""
        half = len(self.paths.times_s) // 2
        x, y = self.paths.times_s[half:], self.paths.mean_square()[half:].clamp(min=1e-290).log()
        x = x - x.mean()
        return float((x * y).sum() / (x * x).sum())

    @property
    def excess(self) -> float:
        """The largest logarithm of E |z|^2 over what the certificate allows, over all times."""
        start = float(self.paths.mean_square()[0])
        bound = math.log(self.certificate.overshoot * start) - self.certificate.rate * self.paths.times_s
        return float((self.paths.mean_square().clamp(min=1e-290).log() - bound).max())


@dataclass(frozen=True)
class Rakkiyappan2015MJBAM(Experiment):
    """Stochastic bidirectional memories that jump between modes are stable in the mean square where a certificate says so.

    Five kinds of instances, drawn at random: two modes with noise; three modes with a delay; a delay with impulses that push
    away; a mode that is unstable by itself and soon left; a flow without stability that impulses hold. Each is certified, then
    simulated on many paths. The logarithm of the mean square must fall at least as fast as certified, and must at no time be
    above the certified bound. The control has connections too strong for any of it.

    Args:
        num_seeds: instances of each kind.
        num_paths: of each instance.
        duration_s: of a path.
        dt_s: Euler-Maruyama step.
        num_updates: of the search for a certificate.
    Source:
        Rakkiyappan, Chandrasekar, Lakshmanan & Park 2015 (title of the row, not read: its matrices are unknown, so the
        instances are our own); like Zhu & Cao 2012, IEEE TNNLS 23(3):467-479 (abstract read)
    Differs:
        The certificate is our own: a Lyapunov function z.P z for each mode, sector bounds and Halanay's inequality, found by
        gradient and checked by eigenvalues (`JumpBAM.certify`). One delay for all terms. A mean over paths of a product of
        random factors is below its expectation more often than above; instances have mild noise.
    """

    id: ClassVar[str] = "rakkiyappan-2015-mjbam"
    source: ClassVar[str] = "Rakkiyappan et al. 2015, stochastic BAM networks with Markovian jumps, delays and impulses"
    claims: ClassVar[tuple[Claim, ...]] = (
        Claim(
            "worst_slope_above_certified",
            0.0,
            "lower",
            "exponential stability",
            "slope + rate, worst instance",
            "theorem",
        ),
        Claim("worst_excess", 0.0, "lower", "", "log of E |z|^2 over the certified bound", "theorem"),
        Claim("certified_share", 0.9, "higher", "", "instances of the five kinds that get a certificate"),
        Claim("certified_above_exact", 0.0, "lower", "", "certified minus exact rate, no delay, worst", "theorem"),
        Claim("control_certified", 0.0, "lower", "", "strong connections: certificates", "theorem", control=True),
        Claim("control_slope", 0.5, "higher", "", "strong connections: slope of log E |z|^2", control=True),
    )

    num_seeds: int = 5
    num_paths: int = 1000
    duration_s: float = 6.0
    dt_s: float = 0.005
    num_updates: int = 400

    @classmethod
    def smoke(cls) -> Self:
        """One instance of each kind, few paths."""
        return cls(num_seeds=1, num_paths=20, duration_s=1.0, dt_s=0.025, num_updates=4)

    def run(self, log: Log) -> Mapping[str, float]:
        """Certify and simulate every instance."""
        found: list[_Found] = []
        jobs = [(name, seed) for seed in range(self.num_seeds) for name in (*_KINDS, CONTROL)]
        for number, (name, seed) in enumerate(jobs):
            log(f"{name}, instance {seed + 1} of {self.num_seeds}", number / len(jobs))
            generator = torch.Generator().manual_seed(seed)
            system = _instance(name, generator)
            start = 1e-3 * torch.ones(system.size) if name == CONTROL else None
            duration = self.duration_s / 10 if name == CONTROL else self.duration_s  # before the activation saturates
            paths = system.simulate(self.num_paths, duration, self.dt_s, start=start, generator=generator)
            found.append(_Found(name, system, system.certify(self.num_updates), system.certify(0), paths))
        stable = [f for f in found if f.name != CONTROL]
        proved = [f for f in stable if f.certificate.certified]
        wild = [f for f in found if f.name == CONTROL]
        prompt = [f for f in proved if f.system.delay_s == 0]
        tight = [f.certificate.rate / second_moment_rate(f.system) for f in prompt]
        log.figure("mean-square", lambda figure: _draw(figure, found[: len(_KINDS) + 1]))
        return {
            "worst_slope_above_certified": max(f.slope + f.certificate.rate for f in proved),
            "worst_excess": max(f.excess for f in proved),
            "certified_share": len(proved) / len(stable),
            "certified_above_exact": max(f.certificate.rate - second_moment_rate(f.system) for f in prompt),
            "control_certified": float(sum(f.certificate.certified for f in wild)),
            "control_slope": min(f.slope for f in wild),
            "instances": float(len(stable)),
            "certified_by_norms_alone": sum(f.norms.certified for f in stable) / len(stable),
            "certified_over_exact_rate": sum(tight) / len(tight),
            "mean_certified_rate": sum(f.certificate.rate for f in proved) / len(proved),
            "mean_slope": sum(f.slope for f in proved) / len(proved),
        }


def _instance(name: str, generator: torch.Generator) -> JumpBAM:
    """Three keys and two values; connections of random sign."""
    kind = _KINDS.get(name, _KINDS["two modes, noise"])
    modes, keys, values = kind.modes, 3, 2
    size = keys + values

    def normal(scale: float, *shape: int) -> Tensor:
        return scale * torch.randn(modes, *shape, generator=generator, dtype=torch.float64)

    def decay(width: int) -> Tensor:
        return kind.decay[:, None] + 0.5 * torch.rand(modes, width, generator=generator, dtype=torch.float64)

    arguments: dict[str, Any] = {
        "decay_keys": decay(keys),
        "decay_values": decay(values),
        "to_keys": normal(kind.prompt, keys, values),
        "to_values": normal(kind.prompt, values, keys),
        "noise": normal(0.15, size, size),
        "jumps": kind.jumps,
    }
    if kind.delay_s:
        arguments["late_to_keys"] = normal(kind.late, keys, values)
        arguments["late_to_values"] = normal(kind.late, values, keys)
        arguments["late_noise"] = normal(0.05, size, size)
        arguments["delay_s"] = kind.delay_s
    if kind.impulse != 1.0:
        turn = torch.linalg.qr(normal(1.0, size, size))[0]
        arguments["impulse"] = kind.impulse * turn
        arguments["impulse_every_s"] = kind.impulse_every_s
    if name == CONTROL:
        arguments["to_keys"] = 4 * torch.ones(modes, keys, values, dtype=torch.float64)
        arguments["to_values"] = 4 * torch.ones(modes, values, keys, dtype=torch.float64)
    return JumpBAM(**arguments)


class _Kind(NamedTuple):
    jumps: Tensor
    decay: Tensor
    prompt: float = 0.3
    late: float = 0.0
    delay_s: float = 0.0
    impulse: float = 1.0
    impulse_every_s: float = 1.0

    @property
    def modes(self) -> int:
        return len(self.jumps)


_TWO = torch.tensor([[-1.0, 1.0], [2.0, -2.0]]).double()
_THREE = torch.tensor([[-2.0, 1.0, 1.0], [0.5, -1.0, 0.5], [1.0, 2.0, -3.0]]).double()
_LEFT = torch.tensor([[-0.5, 0.5], [6.0, -6.0]]).double()  # the second mode is left twelve times as soon
_KINDS: dict[str, _Kind] = {
    "two modes, noise": _Kind(_TWO, torch.tensor([1.5, 2.0]).double()),
    "three modes, delay of 0.5 s": _Kind(_THREE, torch.tensor([2.0, 2.5, 3.0]).double(), late=0.2, delay_s=0.5),
    "delay of 1 s, impulses push away": _Kind(
        _TWO, torch.tensor([2.5, 3.0]).double(), late=0.15, delay_s=1.0, impulse=1.1, impulse_every_s=1.5
    ),
    "a mode unstable by itself": _Kind(_LEFT, torch.tensor([2.5, -0.8]).double()),
    "impulses hold an unstable flow": _Kind(
        _TWO, torch.tensor([-0.3, -0.2]).double(), prompt=0.2, impulse=0.5, impulse_every_s=0.4
    ),
}


def _draw(figure: Any, found: list[_Found]) -> None:
    axes = figure.subplots(2, -(-len(found) // 2)).ravel()
    for axis, one in zip(axes, found):
        times = one.paths.times_s
        axis.semilogy(
            times, one.paths.mean_square().clamp(min=1e-290), lw=1.3, color="#0072b2", label="E |z|^2, simulated"
        )
        if one.certificate.certified:
            start = one.certificate.overshoot * float(one.paths.mean_square()[0])
            axis.semilogy(
                times, start * torch.exp(-one.certificate.rate * times), lw=1, ls="--", color="0.4", label="certified"
            )
        axis.set_title(one.name, fontsize=8, loc="left")
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=7)
    for axis in axes[len(found) :]:
        axis.set_visible(False)
    figure.supxlabel("t, s", fontsize=8)
