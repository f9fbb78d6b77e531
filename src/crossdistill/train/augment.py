"""What is shown of each training image, every draw keyed by image: crop, flip, colours, and an erased box, in this order.

Enumerated views (`crops: 8, flip: true`) are a fixed list for each image, equal for every run of a study, so that a teacher's
answers can be stored; which view is shown in an epoch is keyed by (run, epoch, image).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.seeds import Part, key
from crossdistill.ops.random import image_keys, uniform_integers
from crossdistill.train.color import recolored
from crossdistill.train.crops import resized, resized_boxes, shifted
from crossdistill.train.erasing import erased, mean_color

LARGEST_SHIFTED = 64  # pixels of the longer side; larger images are cropped as ImageNet's are


class Augmentation:
    """The views of training images uint8 [images, 3, height, width], which are handed over whole and are always the same.

    Enumerated views are numbered from 0 to `n_views` - 1 for each image; `n_views` is None where they are drawn afresh. `who` is
    (study seed, role, run seed): the study seed alone keys the list of views, all of it which of them is shown.
    """

    def __init__(self, recipe: TrainingConfig, size: tuple[int, int], *, who: tuple[Part, ...]) -> None:
        self.recipe, self.views, self.size, self.study, self.run = recipe, recipe.views, size, who[:1], who[1:]
        self.resizes = recipe.crop == "resized" or (recipe.crop == "auto" and max(size) > LARGEST_SHIFTED)
        self.fill: Tensor | None = None

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
        """The augmented rows `index` of the images, as uint8 [batch, 3, height, width]."""
        if self.n_views is not None:
            return self.view(images, index, self.views_shown(index, epoch))

        def keys(purpose: str) -> Tensor:
            return image_keys(key(*self.study, *self.run, purpose, epoch), index)

        flip = uniform_integers(keys("view"), 3, 1 << 16)[:, 2] % 2  # a shift takes the first two of these draws
        shown = self._cropped(images, index, keys("resized" if self.resizes else "view"), flip)
        return self._treated(images, shown, keys)

    def view(self, images: Tensor, index: Tensor, view: Tensor) -> Tensor:
        """The rows `index`, each in its enumerated view of that number: uint8 [batch, 3, height, width]."""
        if isinstance(self.views, str):
            return images[index]
        crop, flip = view // (1 + self.views.flip), view % (1 + self.views.flip)
        crop_keys = image_keys(key(*self.study, "crop"), index * self.views.crops + crop)
        number = index * (self.views.crops * (1 + self.views.flip)) + view
        return self._treated(
            images, self._cropped(images, index, crop_keys, flip), lambda purpose: image_keys(key(*self.study, purpose), number)
        )

    def _cropped(self, images: Tensor, index: Tensor, keys: Tensor, flip: Tensor) -> Tensor:
        if self.resizes:
            return resized(images, index, resized_boxes(keys, self.size, self.recipe.crop_scale), flip)
        top, left = uniform_integers(keys, 2, 1 << 16).unbind(1)
        return shifted(images, index, top, left, flip)

    def _treated(self, images: Tensor, shown: Tensor, keys: Callable[[str], Tensor]) -> Tensor:
        if self.recipe.color != "none":
            shown = recolored(shown, keys("color"), self.recipe.color)
        if self.recipe.random_erasing:
            self.fill = mean_color(images) if self.fill is None else self.fill
            shown = erased(shown, keys("erasing"), self.recipe.random_erasing, self.fill)
        return shown
