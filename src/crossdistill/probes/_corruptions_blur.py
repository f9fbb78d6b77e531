"""Corruptions by blur: out of focus, through frosted glass, by motion, by zooming."""

import numpy as np

from crossdistill.probes._corruptions_linear import (
    KERNEL_BITS,
    WEIGHT_BITS,
    ZOOM_BITS,
    filtered,
    gaussian,
    repeat_edge,
    smoothed,
    streaked,
    whole_weights,
    zoomed,
)
from crossdistill.probes._corruptions_noise import Draw


def soft_disc(radius: float, sigma: float) -> np.ndarray:
    """A disc smoothed over 1 pixel (2 where the radius exceeds 8), not normalised: float64."""
    soft_reach = 2 if radius > 8 else 1
    reach = int(radius) + soft_reach
    places = np.arange(-reach, reach + 1)
    sharp = (places**2 + places[:, None] ** 2 <= radius**2).astype(float)
    soft = gaussian(sigma, soft_reach)
    for _ in range(2):
        sharp = np.stack([np.convolve(line, soft, mode="same") for line in sharp]).T
    return sharp


def disc(radius: float, sigma: float) -> np.ndarray:
    """What a lens out of focus makes of a point: int64, adds up to 2**22.

    The published kernels of radius 8 and 10 add up to 1.013 and 1.011, by an oversight at their border; these keep the brightness.
    """
    return whole_weights(soft_disc(radius, sigma), KERNEL_BITS)


def defocus_blur(images: np.ndarray, shape: tuple[float, float], draw: Draw) -> np.ndarray:
    """Filtered by a disc; `shape` is its radius and the sigma that softens its edge, in pixels."""
    return filtered(images, disc(*shape))


def passed_on(draws: np.ndarray, height: int, width: int, reach: int) -> np.ndarray:
    """Where each pixel's colour comes from after one pass over the image that gives each pixel the colour of one nearby.

    The pass runs from the last pixel to the first, so what it copies may have been copied just before; it leaves a margin of `reach`
    pixels. `draws` uint16 [images, 2, pixels] say how far down and right the neighbour stands, from -reach to reach - 1. Gives int64
    [images, pixels].
    """
    n_pixels = height * width
    own = np.arange(n_pixels)
    rows, columns = own // width, own % width
    inside = (rows > reach) & (rows <= height - reach) & (columns > reach) & (columns <= width - reach)
    down, right = ((draws.astype(np.int64) * (2 * reach) >> 16) - reach).transpose(1, 0, 2)
    neighbour = np.where(inside, own + down * width + right, own)
    # A place stands for the pixel as it is after the pass; that number + n_pixels for the pixel as it was before.
    done_before = (neighbour > own) & inside[np.minimum(neighbour, n_pixels - 1)]
    source = np.where(done_before, neighbour, neighbour + n_pixels)
    before = np.broadcast_to(own + n_pixels, source.shape)
    while (source < n_pixels).any():  # each time twice as far along the chain of copies
        source = np.take_along_axis(np.concatenate([source, before], axis=1), source, axis=1)
    return source - n_pixels


def glass_blur(images: np.ndarray, shape: tuple[float, int, int], draw: Draw) -> np.ndarray:
    """Smoothed, then pixels displaced, then smoothed again; `shape` is sigma in pixels, the furthest displacement, and the passes.

    The published code means to swap pixels but copies them, in place and one after the other: what it does is what is done here.
    """
    sigma, reach, n_passes = shape
    n, _, height, width = images.shape
    bits = 2 * WEIGHT_BITS
    soft = np.floor(smoothed(images, sigma, 4, repeat_edge) / 2**bits + 0.5).astype(np.uint8)
    draws = draw(n_passes * 2 * height * width).reshape(n, n_passes, 2, -1)
    source = np.broadcast_to(np.arange(height * width), (n, height * width))
    for number in range(n_passes):
        source = np.take_along_axis(source, passed_on(draws[:, number], height, width, reach), axis=1)
    displaced = np.take_along_axis(soft.reshape(n, 3, -1), source[:, None], axis=2).reshape(images.shape)
    return np.floor(smoothed(displaced, sigma, 4, repeat_edge) / 2**bits + 0.5).astype(np.uint8)


def angles_between(draws: np.ndarray, low: int, high: int) -> np.ndarray:
    """Degrees from `low` to `high` for 16-bit draws, at the middle of 65,536 equal steps: never a multiple of one degree."""
    return low + (high - low) * (draws + 0.5) / 2**16


def motion_blur(images: np.ndarray, shape: tuple[int, float], draw: Draw) -> np.ndarray:
    """Smeared along a line within 45 degrees of the horizontal, drawn for each image; `shape` is radius and sigma in pixels."""
    return streaked(images, angles_between(draw(1)[:, 0], -45, 45), *shape)


def zoom_blur(images: np.ndarray, shape: tuple[int, int], draw: Draw) -> np.ndarray:
    """The mean of the image and of its centre magnified by 0, s, 2 s ... percent, `shape` being s and the number of those."""
    step, n_zooms = shape
    values = images.astype(np.int32)
    sums = values << 2 * ZOOM_BITS
    for number in range(n_zooms):
        sums += zoomed(values, 100 + number * step)
    whole = (n_zooms + 1) << 2 * ZOOM_BITS
    return ((sums + whole // 2) // whole).astype(np.uint8)
