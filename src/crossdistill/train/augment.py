"""Batches of augmented images gathered from the resident uint8 images, every draw keyed by image.

Enumerated views (`crops: 8, flip: true`) are a fixed list for each image, equal for every run of a study, so that a teacher's
answers could be stored; which view is shown in an epoch is keyed by (run, epoch, image).
"""

from functools import cache

import torch
from torch import Tensor

from crossdistill.core.config import TrainingConfig
from crossdistill.core.seeds import Part, key
from crossdistill.ops.random import image_keys, uniform_integers


class Augmentation:
    """What is shown of each training image: random crop after reflection by an eighth of the side, and horizontal flip.

    Enumerated views are numbered from 0 to `n_views` - 1 for each image; `n_views` is None where they are drawn afresh. `who` is
    (study seed, role, run seed): the study seed alone keys the list of views, all of it which of them is shown.
    """

    def __init__(self, recipe: TrainingConfig, size: tuple[int, int], *, who: tuple[Part, ...]) -> None:
        self.views, self.size, self.study, self.run = recipe.views, size, who[:1], who[1:]

    @property
    def n_views(self) -> int | None:
        """How many views an image has; None where they are no list."""
        if self.views == "none":
            return 1
        return None if isinstance(self.views, str) else self.views.crops * (1 + self.views.flip)

    def views_shown(self, index: Tensor, epoch: int) -> Tensor:
        """int64 [batch]: the number of the view that each of the rows `index` is shown in, for enumerated views."""
        if isinstance(self.views, str):
            return torch.zeros_like(index)
        crop, flip = uniform_integers(image_keys(key(*self.study, *self.run, "view", epoch), index), 2, 1 << 16).unbind(1)
        return crop % self.views.crops * (1 + self.views.flip) + flip % 2 * self.views.flip

    def __call__(self, images: Tensor, index: Tensor, epoch: int) -> Tensor:
        """The augmented rows `index` of images uint8 [images, 3, height, width], as uint8 [batch, 3, height, width]."""
        if self.n_views is not None:
            return self.view(images, index, self.views_shown(index, epoch))
        keys = image_keys(key(*self.study, *self.run, "view", epoch), index)
        top, left, flip = uniform_integers(keys, 3, 1 << 16).unbind(1)
        return shifted(images, index, top, left, flip % 2)

    def view(self, images: Tensor, index: Tensor, view: Tensor) -> Tensor:
        """The rows `index`, each in its enumerated view of that number: uint8 [batch, 3, height, width]."""
        if isinstance(self.views, str):
            return images[index]
        crop, flip = view // (1 + self.views.flip), view % (1 + self.views.flip)
        crop_keys = image_keys(key(*self.study, "crop"), index * self.views.crops + crop)
        top, left = uniform_integers(crop_keys, 2, 1 << 16).unbind(1)
        return shifted(images, index, top, left, flip)


def shifted(images: Tensor, index: Tensor, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
    """The rows `index`, cropped at `top` and `left` (16 bits each) after reflection by an eighth, mirrored where `flip` is 1."""
    height, width = images.shape[2:]
    row_windows, column_windows = _windows(height, images.device), _windows(width, images.device)
    rows = row_windows[top % len(row_windows)]
    columns = torch.cat([column_windows, column_windows.flip(1)])[left % len(column_windows) + flip * len(column_windows)]
    # Whole rows first, then columns: three times as fast on a CPU as one gather of single pixels.
    planes = index[:, None] * 3 + torch.arange(3, device=images.device)  # batch channels
    lines = planes[:, :, None] * height + rows[:, None, :]  # batch channels height
    chosen = images.reshape(-1, width).index_select(0, lines.flatten()).view(len(index), 3, height, width)
    return chosen.gather(3, columns[:, None, None, :].expand_as(chosen))


@cache
def _windows(side: int, device: torch.device) -> Tensor:
    """int64 [shifts, side]: the positions that each window of the reflected side shows, reflected by an eighth (at least 1 px)."""
    pad = max(1, round(side / 8))
    return _reflected(torch.arange(-pad, side + pad, device=device), side).unfold(0, side, 1)


def _reflected(position: Tensor, side: int) -> Tensor:
    """Positions outside 0..side-1 mirrored at the border pixel's centre, as numpy's and torch's `reflect` do."""
    return (side - 1) - ((side - 1) - position.abs()).abs()


def mixed_up(images: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """mixup (Zhang et al., 2018): `share` of each image and 1 - share of its neighbour in the batch, targets alike.

    Returns images in [0, 1] and targets. Raises ValueError for a share below a half: each row is most of all its own image, so
    that its label and its row in a method's memory stay its own.
    """
    if not 0.5 <= share <= 1:
        raise ValueError(f"share is 0.5 to 1, got {share}")
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    mix = lambda values: share * values + (1 - share) * values.roll(1, dims=0)  # noqa: E731
    return mix(images), mix(targets)
