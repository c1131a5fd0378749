"""Stochastic bidirectional memories that jump between modes, hear late and are struck: simulated, and certified stable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.checks import sentence

_Array = np.ndarray


class JumpPaths(NamedTuple):
    """Simulated paths.

    Args:
        times_s: (T,) the first is 0.
        states: (T, P, N) both layers, keys first.
        modes: (T, P) int64.
    """

    times_s: Tensor
    states: Tensor
    modes: Tensor

    def mean_square(self) -> Tensor:
        """(T,) E |z|^2 over the paths."""
        return self.states.square().sum(-1).mean(-1)


class Certificate(NamedTuple):
    """What was proved: E |z(t)|^2 <= overshoot * exp(-rate t) * sup of |z|^2 before t = 0.

    Args:
        rate: 1/s; the system is certified stable in the mean square where it is positive.
        overshoot: the constant in front.
        alpha, beta: E V' <= -alpha E V + beta sup E V over the delay, 1/s.
        impulse: V after an impulse over V before it; 1 without impulses.
        lyapunov: (R, N, N) P of V = z.P_mode z.
        prompt, late: (R, N) multipliers of the sector bounds of f(z) and f(z late).
    """

    rate: float
    overshoot: float
    alpha: float
    beta: float
    impulse: float
    lyapunov: Tensor
    prompt: Tensor
    late: Tensor

    @property
    def certified(self) -> bool:
        """Is the rate positive?"""
        return self.rate > 0


@dataclass(frozen=True, eq=False)
class JumpBAM:
    """Stochastic bidirectional memory with Markov jumps, a delay and impulses, around its equilibrium z = (x, y) = 0:

        dx = [-A_r x + W_r f(y) + W'_r f(y(t - tau))] dt
        dy = [-B_r y + U_r f(x) + U'_r f(x(t - tau))] dt      both + [S_r z dw1 + S'_r z(t - tau) dw2]
        r(t) jumps with the generator Q;   z(t_k) = J_r z(t_k-) at t_k = D, 2 D, ...          f = tanh

    Everything leads with R, the number of modes. Shifted coordinates make any equilibrium zero.

    Args:
        decay_keys, decay_values: (R, K) and (R, V) the diagonals A and B, 1/s.
        to_keys, to_values: (R, K, V) W and (R, V, K) U.
        late_to_keys, late_to_values: W' and U'; None for none.
        jumps: (R, R) Q, rows add up to zero, 1/s.
        noise, late_noise: (R, N, N) S and S', N = K + V; None for none.
        delay_s: tau.
        impulse: (R, N, N) J; None for none.
        impulse_every_s: D.
    Raises:
        ValueError: shapes that do not fit, a generator that is none, a negative delay, impulses without a time between them.
    Source:
        the kind of system that Rakkiyappan et al. 2015 and Zhu & Cao 2012, IEEE TNNLS 23(3):467-479, prove stable by linear
        matrix inequalities (abstract of the second read); the certificate is our own, see `certify`
    Example:
        >>> still = torch.zeros(1, 1)
        >>> system = JumpBAM(torch.ones(1, 1), torch.ones(1, 1), 0.4 * torch.ones(1, 1, 1), 0.4 * torch.ones(1, 1, 1),
        ...                  jumps=still, delay_s=0.5, late_to_keys=0.2 * torch.ones(1, 1, 1))
        >>> system.certify().certified
        True
    """

    decay_keys: Tensor
    decay_values: Tensor
    to_keys: Tensor
    to_values: Tensor
    jumps: Tensor
    late_to_keys: Tensor | None = None
    late_to_values: Tensor | None = None
    noise: Tensor | None = None
    late_noise: Tensor | None = None
    delay_s: float = 0.0
    impulse: Tensor | None = None
    impulse_every_s: float | None = None

    def __post_init__(self) -> None:
        modes, keys, values, n = self.num_modes, self.num_keys, self.num_values, self.size
        shapes = {
            "decay_values": (modes, values),
            "to_keys": (modes, keys, values),
            "to_values": (modes, values, keys),
            "jumps": (modes, modes),
            "late_to_keys": (modes, keys, values),
            "late_to_values": (modes, values, keys),
            "noise": (modes, n, n),
            "late_noise": (modes, n, n),
            "impulse": (modes, n, n),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(sentence("JumpBAM", name, shape, tuple(value.shape)))  # type: ignore[arg-type]
        off = self.jumps - torch.diag(self.jumps.diagonal())
        if bool((off < 0).any()) or float(self.jumps.double().sum(-1).abs().max()) > 1e-6:
            raise ValueError(
                sentence(
                    "JumpBAM",
                    "jumps",
                    "a generator: rates from mode to mode, rows that add up to 0",
                    self.jumps.tolist(),
                )
            )
        if not 0 <= self.delay_s < math.inf:
            raise ValueError(sentence("JumpBAM", "delay_s", "at least 0", self.delay_s))
        if (self.impulse is None) != (self.impulse_every_s is None):
            raise ValueError(
                sentence("JumpBAM", "impulse_every_s", "given with impulse, and only then", self.impulse_every_s)
            )
        if self.impulse_every_s is not None and not self.impulse_every_s > 0:
            raise ValueError(sentence("JumpBAM", "impulse_every_s", "positive", self.impulse_every_s))

    @property
    def num_modes(self) -> int:
        """R."""
        return self.decay_keys.shape[0]

    @property
    def num_keys(self) -> int:
        """K."""
        return self.decay_keys.shape[1]

    @property
    def num_values(self) -> int:
        """V."""
        return self.decay_values.shape[1]

    @property
    def size(self) -> int:
        """N = K + V."""
        return self.num_keys + self.num_values

    @property
    def decay(self) -> Tensor:
        """(R, N) float64 of both layers."""
        return torch.cat([self.decay_keys, self.decay_values], 1).double()

    @property
    def weights(self) -> Tensor:
        """(R, N, N) float64: W and U off the diagonal blocks."""
        return self._crossed(self.to_keys, self.to_values)

    @property
    def late_weights(self) -> Tensor:
        """(R, N, N) float64: W' and U'."""
        return self._crossed(self.late_to_keys, self.late_to_values)

    def _crossed(self, to_keys: Tensor | None, to_values: Tensor | None) -> Tensor:
        whole = torch.zeros(self.num_modes, self.size, self.size, dtype=torch.float64)
        if to_keys is not None:
            whole[:, : self.num_keys, self.num_keys :] = to_keys
        if to_values is not None:
            whole[:, self.num_keys :, : self.num_keys] = to_values
        return whole

    def _square(self, value: Tensor | None) -> Tensor:
        return torch.zeros(self.num_modes, self.size, self.size).double() if value is None else value.double()

    # --- paths ---

    def simulate(
        self,
        num_paths: int = 1000,
        duration_s: float = 10.0,
        dt_s: float = 0.01,
        *,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> JumpPaths:
        """Euler-Maruyama paths; modes jump by the exact probabilities of a step.

        Args:
            num_paths: P.
            duration_s: of every path.
            dt_s: step; delay and time between impulses are rounded to whole steps.
            start: (N,) or (P, N), also the history before t = 0; None is 1 in every unit.
            generator: of the noise, the modes and their jumps.
        """
        num_steps, late = round(duration_s / dt_s), round(self.delay_s / dt_s)
        every = None if self.impulse_every_s is None else max(1, round(self.impulse_every_s / dt_s))
        decay, weights, late_weights = self.decay, self.weights, self.late_weights
        noise, late_noise, impulse = self._square(self.noise), self._square(self.late_noise), self.impulse
        chances = torch.linalg.matrix_exp(self.jumps.double() * dt_s).cumsum(-1)
        z = torch.ones(self.size, dtype=torch.float64) if start is None else start.double()
        z = z.expand(num_paths, self.size).clone()
        mode = torch.randint(0, self.num_modes, (num_paths,), generator=generator)
        states, modes = [z], [mode]

        def through(matrices: Tensor, vectors: Tensor, mode: Tensor) -> Tensor:
            return torch.stack([vectors @ m.T for m in matrices]).gather(
                0, mode[None, :, None].expand(1, *vectors.shape)
            )[0]

        for step in range(1, num_steps + 1):
            before = states[max(0, step - 1 - late)]
            drift = through(weights, z.tanh(), mode) + through(late_weights, before.tanh(), mode) - decay[mode] * z
            kicks = torch.randn(2, num_paths, 1, generator=generator, dtype=torch.float64) * math.sqrt(dt_s)
            z = z + dt_s * drift + kicks[0] * through(noise, z, mode) + kicks[1] * through(late_noise, before, mode)
            if impulse is not None and every is not None and step % every == 0:
                z = through(impulse.double(), z, mode)
            lot = torch.rand(num_paths, 1, generator=generator, dtype=torch.float64)
            mode = (lot > chances[mode]).sum(-1).clamp(max=self.num_modes - 1)
            states.append(z)
            modes.append(mode)
        times_s = torch.arange(num_steps + 1, dtype=torch.float64) * dt_s
        return JumpPaths(times_s, torch.stack(states), torch.stack(modes))

    # --- proof ---

    def certify(self, num_updates: int = 400) -> Certificate:
        """Search a proof of exponential stability in the mean square, and check it.

        With V(z, r) = z.P_r z and diagonal Y_r, Z_r > 0 (f lies between 0 and the identity), it is enough that for all r, s

            -A P_r - P_r A + sum_s q_rs P_s + S'P_r S + Y_r + P_r W Y_r^-1 W'P_r + P_r W' Z_r^-1 W''P_r <= -alpha P_r
            Z_r + S''P_r S' <= beta P_s,    J'P_r J <= mu P_r

        Then E V falls by Halanay's inequality with lambda = alpha - beta' e^(lambda tau), beta' = beta max(1, mu^-m), m the
        most impulses within a delay; impulses change the rate to lambda - ln(mu) / D.

        The search begins with P = 1 (a condition on norms) and climbs along the gradient of the rate. What is returned is
        checked by itself: each inequality once more as one block matrix, by its eigenvalues.

        Args:
            num_updates: of the search; 0 leaves the condition on norms.
        Raises:
            ArithmeticError: the check found an inequality that does not hold.
        """
        n, modes = self.size, self.num_modes
        root = torch.eye(n, dtype=torch.float64).repeat(modes, 1, 1)
        norms = [m.abs().flatten(1).square().sum(1).sqrt().clamp(min=1e-3) for m in (self.weights, self.late_weights)]
        logs = [v.log()[:, None].repeat(1, n) for v in norms]
        variables = [t.clone().requires_grad_() for t in (root, *logs)]
        adam = torch.optim.Adam(variables, lr=0.03)
        best, found = -math.inf, [t.detach().clone() for t in variables]
        for update in range(num_updates + 1):
            rate = self._rate(*_proof(*variables))[0]
            if float(rate.detach()) > best:
                best, found = float(rate.detach()), [t.detach().clone() for t in variables]
            if update == num_updates:
                break
            adam.param_groups[0]["lr"] = 0.03 * (1 - update / num_updates)
            adam.zero_grad()
            (-rate).backward()
            adam.step()
        lyapunov, prompt, late = _proof(*found)
        reached, alpha, beta, impulse = (float(v) for v in self._rate(lyapunov, prompt, late))
        values = torch.linalg.eigvalsh(lyapunov)
        overshoot = float(values.max() / values.min()) * max(1.0, 1 / impulse)
        certificate = Certificate(reached, overshoot, alpha, beta, impulse, lyapunov, prompt, late)
        self._check(certificate)
        return certificate

    def _rate(self, lyapunov: Tensor, prompt: Tensor, late: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """rate, alpha, beta, mu; the first three with gradients."""
        root = torch.linalg.inv(torch.linalg.cholesky(lyapunov))  # P = C C', root = C^-1

        def most(matrices: Tensor, roots: Tensor) -> Tensor:
            whole = roots @ matrices @ roots.mT
            return torch.linalg.eigvalsh((whole + whole.mT) / 2)[..., -1].amax()

        alpha = -most(self._drift(lyapunov, prompt, late), root)
        beta = most(self._heard(lyapunov, late)[:, None], root[None])
        mu = torch.ones((), dtype=torch.float64)
        if self.impulse is not None:
            mu = most(self.impulse.double().mT @ lyapunov @ self.impulse.double(), root)
        harder = beta * torch.clamp(mu ** -self._within(), min=1.0)
        level = _halanay(float(alpha.detach()), float(harder.detach()), self.delay_s)
        weight = math.exp(max(level, 0.0) * self.delay_s)
        slope = 1 + (float(harder.detach()) * self.delay_s * weight if level > 0 else 0.0)
        rate = level + (alpha - harder * weight - level) / slope  # the derivative of the root
        if self.impulse_every_s is not None:
            rate = rate - mu.log() / self.impulse_every_s
        return rate, alpha, beta, mu

    def _within(self) -> int:
        """The most impulses within one delay."""
        return 0 if self.impulse_every_s is None else math.floor(self.delay_s / self.impulse_every_s) + 1

    def _drift(self, lyapunov: Tensor, prompt: Tensor, late: Tensor) -> Tensor:
        bent = torch.diag_embed(self.decay) @ lyapunov
        noise, w, v = self._square(self.noise), lyapunov @ self.weights, lyapunov @ self.late_weights
        jumped = torch.einsum("rs,sij->rij", self.jumps.double(), lyapunov)
        whole = -bent - bent.mT + jumped + noise.mT @ lyapunov @ noise + torch.diag_embed(prompt)
        return whole + (w / prompt[:, None]) @ w.mT + (v / late[:, None]) @ v.mT

    def _heard(self, lyapunov: Tensor, late: Tensor) -> Tensor:
        noise = self._square(self.late_noise)
        used = late if bool((self.late_weights != 0).any()) else torch.zeros_like(late)
        return torch.diag_embed(used) + noise.mT @ lyapunov @ noise

    def _check(self, found: Certificate, slack: float = 1e-9) -> None:
        """Every inequality as one block matrix in NumPy, by its eigenvalues, in float64."""
        p, y, z = (t.numpy() for t in (found.lyapunov, found.prompt, found.late))
        decay, weights, late_weights = self.decay.numpy(), self.weights.numpy(), self.late_weights.numpy()
        noise, late_noise = self._square(self.noise).numpy(), self._square(self.late_noise).numpy()
        jumps = self.jumps.double().numpy()
        zero = np.zeros((self.size, self.size))
        for r in range(self.num_modes):
            a = np.diag(decay[r])
            corner = -a @ p[r] - p[r] @ a + noise[r].T @ p[r] @ noise[r] + np.diag(y[r]) + found.alpha * p[r]
            for s in range(self.num_modes):
                corner = corner + jumps[r, s] * p[s]
            w, v = p[r] @ weights[r], p[r] @ late_weights[r]
            block = np.block([[corner, w, v], [w.T, -np.diag(y[r]), zero], [v.T, zero, -np.diag(z[r])]])
            _holds("the drift", -block, slack)
            _holds("positivity", p[r], -1e-12)
            heard = late_noise[r].T @ p[r] @ late_noise[r] + (np.diag(z[r]) if late_weights.any() else zero)
            for s in range(self.num_modes):
                _holds("the delay", found.beta * p[s] - heard, slack)
            if self.impulse is not None:
                j = self.impulse[r].double().numpy()
                _holds("the impulse", found.impulse * p[r] - j.T @ p[r] @ j, slack)


def second_moment_rate(system: JumpBAM) -> float:
    """The exact rate at which E |z|^2 falls where f is the identity and nothing is late; the late terms count as prompt.

    The second moments of each mode, X_r = E[z z' 1(r)], obey a linear equation; its largest eigenvalue (with impulses, that of
    one period) says how they grow. Near zero, where tanh is the identity, it is what a certificate is to be measured by.
    """
    n, modes = system.size, system.num_modes
    eye = torch.eye(n, dtype=torch.float64)
    drift = system.weights + system.late_weights - torch.diag_embed(system.decay)
    whole = torch.zeros(modes, n * n, modes, n * n, dtype=torch.float64)
    for r in range(modes):
        whole[r, :, r] += torch.kron(drift[r], eye) + torch.kron(eye, drift[r])
        for noise in (system.noise, system.late_noise):
            if noise is not None:
                whole[r, :, r] += torch.kron(noise[r].double(), noise[r].double())
        for s in range(modes):
            whole[s, :, r] += float(system.jumps[r, s]) * torch.eye(n * n, dtype=torch.float64)
    matrix = whole.reshape(modes * n * n, modes * n * n)
    if system.impulse is None or system.impulse_every_s is None:
        return -float(torch.linalg.eigvals(matrix).real.max())
    struck = torch.block_diag(*[torch.kron(j.double(), j.double()) for j in system.impulse])
    period = struck @ torch.linalg.matrix_exp(matrix * system.impulse_every_s)
    return -math.log(float(torch.linalg.eigvals(period).abs().max())) / system.impulse_every_s


def _proof(root: Tensor, prompt: Tensor, late: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """P, Y and Z, positive, from free numbers."""
    eye = torch.eye(root.shape[-1], dtype=root.dtype)
    return root @ root.mT + 1e-6 * eye, prompt.exp(), late.exp()


def _halanay(alpha: float, beta: float, delay_s: float) -> float:
    """The root of x = alpha - beta exp(max(x, 0) delay), from below."""
    if alpha <= beta or delay_s == 0:
        return alpha - beta
    low, high = 0.0, alpha
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle + beta * math.exp(middle * delay_s) <= alpha else (low, middle)
    return low


def _holds(what: str, matrix: _Array, slack: float) -> None:
    lowest = float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[0])
    if lowest < -slack * max(1.0, float(np.abs(matrix).max())):
        raise ArithmeticError(f"JumpBAM: the inequality of {what} must hold, got an eigenvalue of {lowest:.3g}.")
