"""Images as patterns: a folder of pictures, or the digits that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..core.checks import sentence

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm")
MAX_PIXELS = 2**26


class Images(NamedTuple):
    """Grey images of one size.

    Args:
        pixels: (M, height, width) float32 in [0, 1]; 1 is white.
        names: (M,) of each.
    """

    pixels: np.ndarray[Any, Any]
    names: list[str]


def read_images(folder: Path, size: tuple[int, int] | None = None, where: str = "read_images") -> Images:
    """Every image of a folder, grey, in the order of their names; what is transparent is white, what a camera turned stands
    upright, of several frames the first counts.

    Args:
        folder: with pictures in it; other files are passed over.
        size: height and width that all are brought to; None is the size of the first.
        where: who asks, for messages.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no image in it, or one that cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing there"
        raise FileNotFoundError(sentence(where, str(folder), "a folder of images, or digits", got))
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not paths:
        want = "a folder with images (" + ", ".join(ENDINGS[:4]) + ", ...)"
        raise ValueError(sentence(where, str(folder), want, "none"))
    pixels = []
    for path in paths:
        try:
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"it has {image.width} x {image.height} pixels")
                grey = _grey(image)
                if size is None:
                    size = (grey.height, grey.width)
                if (grey.height, grey.width) != size:
                    grey = grey.resize((size[1], size[0]), Image.Resampling.BOX)
                pixels.append(np.asarray(grey, dtype=np.float32))
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(sentence(where, str(path), "an image that can be read", str(error).rstrip("."))) from None
    return Images(np.stack(pixels), [path.name for path in paths])


def _grey(image: Any) -> Any:
    """A Pillow image of mode F, 0 black to 1 white; the range of numbers that are no bytes is stretched to that."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # 16 or 32 bits, or floating
        values = np.asarray(image, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(high - low):
            raise ValueError("it has pixels that are no numbers")
        return Image.fromarray(((values - low) / ((high - low) or 1.0)).astype(np.float32))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return Image.fromarray(np.asarray(image.convert("L"), dtype=np.float32) / 255)


def digits() -> Images:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8 (Alpaydin & Kaynak 1998, UCI repository, CC BY 4.0).

    Example:
        >>> digits().pixels.shape
        (1797, 8, 8)
    """
    from sklearn.datasets import load_digits

    found = load_digits()
    names = [f"{label} ({number})" for number, label in enumerate(found.target)]
    return Images((found.images / 16).astype(np.float32), names)


def noise_images(count: int, size: tuple[int, int], seed: int = 0) -> Images:
    """Images without structure: every pixel black or white with equal probability, what theories of capacity assume."""
    pixels = np.random.default_rng(seed).integers(0, 2, (count, *size)).astype(np.float32)
    return Images(pixels, [str(i) for i in range(count)])


def ink(images: Images) -> np.ndarray[Any, Any]:
    """(M, height, width) booleans: which pixels lie on the rarer side of the threshold that separates an image's two tones
    best (Otsu 1979: the one that leaves the least variance on both sides)."""
    found = []
    for image in images.pixels:
        levels = np.unique(image)
        if len(levels) < 2:
            found.append(np.zeros(image.shape, dtype=bool))
            continue
        cuts = (levels[1:] + levels[:-1]) / 2
        if len(cuts) > 256:
            cuts = np.quantile(cuts, np.linspace(0, 1, 256))
        spread = [
            image[image > c].var() * (image > c).mean() + image[image <= c].var() * (image <= c).mean() for c in cuts
        ]
        bright = image > cuts[int(np.argmin(spread))]
        found.append(bright if bright.mean() <= 0.5 else ~bright)
    return np.stack(found)
