"""Batches of augmented images by one gather from the resident uint8 images, every draw keyed by image.

Enumerated views (`crops: 8, flip: true`) are a fixed list for each image, equal for every run of a study, so that a teacher's
answers could be stored; which view is shown in an epoch is keyed by (run, epoch, image).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from crossdistill.core.config import ViewsConfig
from crossdistill.core.seeds import Part, key
from crossdistill.ops.random import image_keys, uniform_integers


@dataclass(frozen=True)
class Augmentation:
    """Random crop after reflection by an eighth of the side, and horizontal flip.

    `study` keys the list of views, `run` (role, run seed) keys which of them is shown.
    """

    views: ViewsConfig | str  # "free": drawn afresh in each epoch; "none": the image itself
    study: tuple[Part, ...]
    run: tuple[Part, ...]

    def __call__(self, images: Tensor, index: Tensor, epoch: int) -> Tensor:
        """The augmented rows `index` of images uint8 [images, 3, height, width], as uint8 [batch, 3, height, width] (channels last)."""
        if self.views == "none":
            return images[index]
        height, width = images.shape[2:]
        pads = (max(1, round(height / 8)), max(1, round(width / 8)))
        top, left, flip = self._draws(index, epoch, pads)
        rows = _reflected(top[:, None] - pads[0] + torch.arange(height, device=images.device), height)
        columns = _reflected(left[:, None] - pads[1] + torch.arange(width, device=images.device), width)
        columns = torch.where(flip[:, None], columns.flip(1), columns)
        gathered = images[index[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # batch height width channels
        return gathered.permute(0, 3, 1, 2)

    def _draws(self, index: Tensor, epoch: int, pads: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        if isinstance(self.views, str):  # free
            draws = uniform_integers(image_keys(key(*self.study, *self.run, "view", epoch), index), 3, 1 << 16)
            crop_draws, flip = draws[:, :2], draws[:, 2] % 2 == 1
        else:
            shown = uniform_integers(image_keys(key(*self.study, *self.run, "view", epoch), index), 2, 1 << 16)
            crop = shown[:, 0] % self.views.crops
            crop_keys = image_keys(key(*self.study, "crop"), index * self.views.crops + crop)
            crop_draws = uniform_integers(crop_keys, 2, 1 << 16)
            flip = (shown[:, 1] % 2 == 1) & self.views.flip
        return crop_draws[:, 0] % (2 * pads[0] + 1), crop_draws[:, 1] % (2 * pads[1] + 1), flip


def _reflected(position: Tensor, side: int) -> Tensor:
    """Positions outside 0..side-1 mirrored at the border pixel's centre, as numpy's and torch's `reflect` do."""
    return (side - 1) - ((side - 1) - position.abs()).abs()


def mixed_up(images: Tensor, targets: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """mixup (Zhang et al., 2018): `share` of each image and 1 - share of its neighbour in the batch, targets alike.

    Returns images in [0, 1], targets, and the dominant label.
    """
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    mix = lambda values: share * values + (1 - share) * values.roll(1, dims=0)  # noqa: E731
    return mix(images), mix(targets), labels if share >= 0.5 else labels.roll(1)
