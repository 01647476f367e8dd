"""Small pictures of images, for people: reduced, stretched, in colours."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np

from pvapy_stream.errors import SettingsError
from pvapy_stream.plugins import require

COLORMAPS = ("viridis", "inferno", "grey", "inverted")

# Colours at even steps from the lowest to the highest value.
_ANCHORS = {
    "viridis": "440154 482878 3e4989 31688e 26828e 1f9e89 35b779 6ece58 b5de2b fde725",
    "inferno": "000004 1b0c41 4a0c6b 781c6d a52c60 cf4446 ed6925 fb9b06 f7d13d fcffa4",
    "grey": "000000 ffffff",
    "inverted": "ffffff 000000",
}
# Of the pixels, darker and brighter ones than these percentiles are shown as black and white.
_STRETCH = (0.5, 99.8)


def to_png(
    image: np.ndarray, *, side: int = 320, colormap: str = "viridis", log: bool = False
) -> bytes:
    """A PNG of an image.

    Args:
        image: (ny, nx) array, or (ny, nx, 3) for colour, which is shown as it is.
        side: largest width and height, pixels; a pixel of the picture is the mean of those it
            stands for.
        colormap: one of `COLORMAPS`.
        log: whether brightness is the logarithm of the value.

    Raises:
        SettingsError: an unknown colormap.
        MissingExtraError: Pillow is not installed.
    """
    if colormap not in _ANCHORS:
        raise SettingsError(
            f"there is no colour map {colormap!r}; there are {', '.join(COLORMAPS)}"
        )
    pillow = require("PIL.Image", "web")
    factor = max(1, -(-max(image.shape[:2]) // side))
    if image.ndim == 3:
        planes = [_stretched(_reduced(image[..., n], factor), log) for n in range(3)]
        picture = pillow.fromarray(np.stack(planes, axis=-1))
    else:
        picture = pillow.fromarray(_stretched(_reduced(image, factor), log)).convert("P")
        picture.putpalette(_palette(colormap))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _reduced(plane: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares of pixels; what is left at the edges is cut off."""
    if factor == 1:
        return plane.astype(np.float32)
    ny, nx = (max(1, size // factor) for size in plane.shape)
    fy, fx = min(factor, plane.shape[0]), min(factor, plane.shape[1])
    cut = plane[: ny * fy, : nx * fx].reshape(ny, fy, nx, fx)
    return cut.mean(axis=(1, 3), dtype=np.float32)


def _stretched(plane: np.ndarray, log: bool) -> np.ndarray:
    good = plane[np.isfinite(plane)]
    if not good.size:
        return np.zeros(plane.shape, np.uint8)
    low, high = (float(v) for v in np.percentile(good, _STRETCH))
    if high <= low:
        low, high = float(good.min()), float(good.max())
    scaled = np.clip((np.nan_to_num(plane, nan=low) - low) / ((high - low) or 1.0), 0, 1)
    if log:
        scaled = np.log1p(scaled * 1000) / np.log1p(1000)
    return (scaled * 255).astype(np.uint8)


@lru_cache
def _palette(colormap: str) -> list[int]:
    anchors = np.array([list(bytes.fromhex(text)) for text in _ANCHORS[colormap].split()], float)
    steps = np.linspace(0, len(anchors) - 1, 256)
    bands: list[Any] = [np.interp(steps, range(len(anchors)), anchors[:, n]) for n in range(3)]
    return np.stack(bands, axis=-1).round().astype(int).ravel().tolist()
