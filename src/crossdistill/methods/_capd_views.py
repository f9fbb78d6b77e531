"""CAPD's multi-view generator: what the student is shown of each image, with a given probability, in place of the image itself."""

from collections.abc import Callable
from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor

from crossdistill.core.types import Views
from crossdistill.ops.random import uniform_integers

JITTERED, MASKED, ROTATED, CROPPED = range(1, 5)
JITTER = 0.4  # brightness, contrast and saturation are scaled by 0.6 to 1.4
CELLS = 8  # a side of the image is cut into 8 cells for masking
MASKED_SHARE = 0.25
MAX_ANGLE = pi / 6
SMALLEST_CROP = 0.6  # of the side
RESOLUTION = 1 << 24  # of a draw


def multi_view(probability: float) -> Views:
    """Views that show each image transformed with this probability, by one of four transformations drawn alike.

    Colour jitter and masked cells are shown to the student alone, and the teacher sees the image as it was: its answer is the
    target that the student is to keep. A rotated or cropped image goes to both, so that positions correspond. The paper names
    the transformations; their strengths are ours.
    """

    def views(images: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        whether, which, *draws = (uniform_integers(keys, 6, RESOLUTION).float() / RESOLUTION).unbind(1)
        kind = torch.where(whether < probability, 1 + (4 * which).long(), 0)
        taught = _replaced(images, kind >= ROTATED, lambda unit, rows: _moved(unit, kind[rows], torch.stack(draws, 1)[rows]))
        shown = _replaced(taught, kind == JITTERED, lambda unit, rows: _jittered(unit, torch.stack(draws[:3], 1)[rows]))
        shown = _replaced(shown, kind == MASKED, lambda unit, rows: _masked(unit, keys[rows]))
        return shown, taught, torch.ones_like(kind, dtype=torch.bool)

    return views


def _replaced(images: Tensor, chosen: Tensor, transform: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The images, the chosen rows replaced by `transform([0, 1] images, rows)`, in their own type and range."""
    rows = chosen.nonzero().flatten()
    if not len(rows):
        return images
    bytes_given = images.dtype == torch.uint8
    unit = images[rows].float() / 255 if bytes_given else images[rows]
    changed = transform(unit, rows).clamp(0, 1)
    replaced = images.clone()
    replaced[rows] = (changed * 255).round().to(torch.uint8) if bytes_given else changed.to(images.dtype)
    return replaced


def _jittered(images: Tensor, draws: Tensor) -> Tensor:
    """Brightness, contrast and saturation scaled, in that order; `draws` [batch, 3] in [0, 1)."""
    brightness, contrast, saturation = (1 + JITTER * (2 * draws - 1))[:, :, None, None, None].unbind(1)
    images = (images * brightness).clamp(0, 1)
    mean = _grey(images).mean(dim=(2, 3), keepdim=True)
    images = (mean + contrast * (images - mean)).clamp(0, 1)
    grey = _grey(images)
    return grey + saturation * (images - grey)


def _grey(images: Tensor) -> Tensor:
    """Luma (ITU-R BT.601) [batch, 1, height, width]."""
    return torch.einsum("bchw,c->bhw", images, images.new_tensor([0.299, 0.587, 0.114]))[:, None]


def _masked(images: Tensor, keys: Tensor) -> Tensor:
    """A quarter of the cells of an 8 x 8 lattice, each drawn by itself, painted mid-grey."""
    # Draws beyond those that chose the transformation, which are the keys' first.
    draws = uniform_integers(keys, 6 + CELLS**2, RESOLUTION)[:, 6:]
    hidden = (draws < MASKED_SHARE * RESOLUTION).view(-1, 1, CELLS, CELLS)
    return images.masked_fill(F.interpolate(hidden.float(), images.shape[-2:], mode="nearest") > 0, 0.5)


def _moved(images: Tensor, kind: Tensor, draws: Tensor) -> Tensor:
    """Rotated about the middle or cropped and enlarged, outside mirrored; `draws` [batch, 4] in [0, 1)."""
    height, width = images.shape[-2:]
    rotated = kind == ROTATED
    angle = torch.where(rotated, MAX_ANGLE * (2 * draws[:, 0] - 1), 0)
    side = torch.where(rotated, 1, SMALLEST_CROP + (1 - SMALLEST_CROP) * draws[:, 1])
    # In affine_grid's coordinates an image runs from -1 to 1 whatever its sides, hence the aspect ratio.
    x = torch.stack([side * angle.cos(), -angle.sin() * height / width, (1 - side) * (2 * draws[:, 2] - 1)], dim=1)
    y = torch.stack([angle.sin() * width / height, side * angle.cos(), (1 - side) * (2 * draws[:, 3] - 1)], dim=1)
    grid = F.affine_grid(torch.stack([x, y], dim=1).to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
