"""Batches of augmented images gathered from the resident uint8 images, every draw keyed by image.

Enumerated views (`crops: 8, flip: true`) are a fixed list for each image, equal for every run of a study, so that a teacher's
answers could be stored; which view is shown in an epoch is keyed by (run, epoch, image).
"""

from functools import cache

import torch
from torch import Tensor

from crossdistill.core.config import ViewsConfig
from crossdistill.core.seeds import Part, key
from crossdistill.ops.random import image_keys, uniform_integers


class Augmentation:
    """Random crop after reflection by an eighth of the side, and horizontal flip.

    `views` is `ViewsConfig`, "free" (drawn afresh in each epoch) or "none" (the image itself). `study` keys the list of
    views, `run` (role, run seed) keys which of them is shown. The draws of an epoch are made at once for all images.
    """

    def __init__(self, views: ViewsConfig | str, study: tuple[Part, ...], run: tuple[Part, ...]) -> None:
        self.views, self.study, self.run = views, study, run
        self.drawn: tuple[int, Tensor, Tensor] | None = None  # epoch, window of rows and window of columns of each image

    def __call__(self, images: Tensor, index: Tensor, epoch: int) -> Tensor:
        """The augmented rows `index` of images uint8 [images, 3, height, width], as uint8 [batch, 3, height, width]."""
        if self.views == "none":
            return images[index]
        height, width = images.shape[2:]
        row_windows, column_windows = _windows(height, images.device), _windows(width, images.device)
        if self.drawn is None or self.drawn[0] != epoch:
            top, left, flip = self._draws(torch.arange(len(images), device=images.device), epoch)
            self.drawn = epoch, top % len(row_windows), left % len(column_windows) + flip * len(column_windows)
        _, row_choice, column_choice = self.drawn
        rows = row_windows[row_choice[index]]
        columns = torch.cat([column_windows, column_windows.flip(1)])[column_choice[index]]  # the second half is mirrored
        # Whole rows first, then columns: three times as fast on a CPU as one gather of single pixels.
        planes = index[:, None] * 3 + torch.arange(3, device=images.device)  # batch channels
        lines = planes[:, :, None] * height + rows[:, None, :]  # batch channels height
        chosen = images.reshape(-1, width).index_select(0, lines.flatten()).view(len(index), 3, height, width)
        return chosen.gather(3, columns[:, None, None, :].expand_as(chosen))

    def _draws(self, index: Tensor, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Top, left and flip (0 or 1) of the rows `index`; top and left are 16 bits each."""
        keys = image_keys(key(*self.study, *self.run, "view", epoch), index)
        if isinstance(self.views, str):  # free
            top, left, flip = uniform_integers(keys, 3, 1 << 16).unbind(1)
            return top, left, flip % 2
        crop, flip = uniform_integers(keys, 2, 1 << 16).unbind(1)
        crop_keys = image_keys(key(*self.study, "crop"), index * self.views.crops + crop % self.views.crops)
        top, left = uniform_integers(crop_keys, 2, 1 << 16).unbind(1)
        return top, left, flip % 2 * self.views.flip


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
