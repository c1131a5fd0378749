"""Pictures of ten kinds, made up: what stands in for photographs where no file is at hand."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.checks import check_positive


class Pictures(NamedTuple):
    """images: (N, S, S) in [0, 1]; labels: (N,) int64."""

    images: Tensor
    labels: Tensor


def blob_pictures(
    num_pictures: int, size: int = 28, num_kinds: int = 10, *, seed: int = 0, kinds_seed: int = 0
) -> Pictures:
    """Each kind is a fixed smooth pattern; each picture is its kind's pattern in other brightness, with noise.

    Args:
        num_pictures: N.
        size: S, a multiple of four.
        num_kinds: how many patterns.
        seed: of the pictures.
        kinds_seed: of the patterns: pictures for training and for a test share it.

    Example:
        >>> blob_pictures(5).images.shape
        torch.Size([5, 28, 28])
    """
    check_positive("blob_pictures", num_pictures=num_pictures, size=size, num_kinds=num_kinds)
    coarse = torch.rand(num_kinds, 1, size // 4, size // 4, generator=torch.Generator().manual_seed(kinds_seed))
    patterns = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)[:, 0]
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_kinds, (num_pictures,), generator=generator)
    light = 0.6 + 0.4 * torch.rand(num_pictures, 1, 1, generator=generator)
    noise = 0.2 * torch.randn(num_pictures, size, size, generator=generator)
    return Pictures((patterns[labels] * light + noise).clamp(0, 1), labels)
