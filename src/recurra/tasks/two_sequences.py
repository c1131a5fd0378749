"""Two kinds of noisy sequences that differ at their beginning (Bengio, Simard & Frasconi 1994)."""

from __future__ import annotations

import torch

from ..core.checks import check_positive, sentence
from ..core.controls import Controls
from ..core.rule import Chunk


def two_sequences(
    num_steps: int,
    num_relevant: int,
    batch_size: int,
    generator: torch.Generator | None = None,
    *,
    signal_noise: float = 0.0,
    targets: tuple[float, float] = (0.0, 1.0),
    target_noise: float = 0.0,
) -> Chunk:
    """Real numbers, T to T + T/10 of them; the first N are 1 in one class and -1 in the other, the rest is noise.

    Args:
        num_steps: T.
        num_relevant: N.
        batch_size: B.
        generator: source of the numbers.
        signal_noise: variance of the Gaussian noise on the first N numbers; that of all others is 0.2.
        targets: asked for at the end, of the class that begins with -1 and of the one that begins with 1.
        target_noise: standard deviation of the Gaussian noise on the target.

    Returns:
        xs (T', B, 1); targets (T', B, 1) at the end of each sequence, where weights (T', B) are 1.

    Source:
        Hochreiter & Schmidhuber 1997, Neural Computation 9(8), experiment 3, after Bengio, Simard & Frasconi 1994, IEEE
        Transactions on Neural Networks 5(2):157-166 (from memory)

    Example:
        >>> chunk = two_sequences(50, 3, 4)
        >>> bool((chunk.xs[:3].abs() == 1).all()), chunk.weights.sum(0).tolist()
        (True, [1.0, 1.0, 1.0, 1.0])
    """
    where = "two_sequences"
    check_positive(where, num_steps=num_steps, num_relevant=num_relevant, batch_size=batch_size)
    if num_relevant > num_steps:
        raise ValueError(sentence(where, "num_relevant", f"at most num_steps={num_steps}", num_relevant))
    rows = torch.arange(batch_size)
    lengths = torch.randint(num_steps, num_steps + num_steps // 10 + 1, (batch_size,), generator=generator)
    longest = int(lengths.max())
    xs = torch.randn(longest, batch_size, 1, generator=generator) * 0.2**0.5
    kind = torch.randint(2, (batch_size,), generator=generator)
    xs[:num_relevant] *= (signal_noise / 0.2) ** 0.5
    xs[:num_relevant] += 2.0 * kind[:, None] - 1
    wanted = torch.tensor(targets)[kind] + target_noise * torch.randn(batch_size, generator=generator)
    ys, weights = torch.zeros(longest, batch_size, 1), torch.zeros(longest, batch_size)
    ys[lengths - 1, rows, 0], weights[lengths - 1, rows] = wanted, 1
    alive = torch.arange(longest)[:, None] < lengths
    return Chunk(xs * alive[..., None], ys, weights, Controls(lengths))
