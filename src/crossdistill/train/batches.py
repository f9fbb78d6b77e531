"""The batches of a training: which images, shown how, and taught by whose answer. Every draw is keyed by image, epoch or step."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.seeds import Part, key, permutation
from crossdistill.core.types import Batch, Clock, ImageSet, Views
from crossdistill.ops.parallel import own_rows
from crossdistill.ops.random import image_keys
from crossdistill.train.augment import Augmentation
from crossdistill.train.mixing import Mix, step_mix, with_rows_before


class Batches:
    """Makes batches from the training images. `who` is (study seed, role, run seed); `views` are the method's own, if it has any."""

    def __init__(
        self, train: ImageSet, recipe: TrainingConfig, *, who: tuple[Part, ...], device: torch.device, views: Views | None,
        partners: np.ndarray | None, autocast: Callable[[], AbstractContextManager[Any]],
    ) -> None:  # fmt: skip
        self.recipe, self.who, self.device, self.views, self.autocast = recipe, who, device, views, autocast
        self.images = resident(train.images, device)
        self.labels = torch.from_numpy(np.asarray(train.labels)).to(device)
        self.n_classes = train.n_classes
        self.augment = Augmentation(recipe, train.size, who=who)
        self.partners = None if partners is None else torch.from_numpy(partners).to(device)

    def order(self, epoch: int) -> Tensor:
        """The rows of the training images in the order in which an epoch shows them."""
        return torch.from_numpy(permutation(len(self.images), *self.who, "order", epoch)).to(self.device)

    def __call__(self, whole: Tensor, epoch: int, clock: Clock) -> Batch:
        """This process's share of the rows `whole`, augmented; mixed before the method's own views, so that the teacher sees the mix."""
        index = own_rows(whole)
        taught_index = index if self.partners is None else self.partners[index]
        mix = step_mix(self.recipe, self.augment.size, clock.step, *self.who)
        if mix is None:
            images, targets = self.augment(self.images, index, epoch), self._targets(index)
            taught = images if self.partners is None else self.augment(self.images, taught_index, epoch)
        else:
            images, taught, targets = self._mixed(mix, whole, epoch)
        listed = mix is None and self.augment.n_views is not None
        view = self.augment.views_shown(taught_index, epoch) if listed else None
        shared = torch.ones(len(images), dtype=torch.bool, device=self.device)
        if self.views:
            keys = image_keys(key(*self.who, "views", epoch), index)
            images, taught, shared = self.views(images, keys) if taught is images else self._shown_apart(images, taught, keys)
        rows, teacher_rows = len(images) // len(index), len(taught) // len(index)
        return Batch(
            images, taught, self.labels[index], targets, index, shared, clock, rows, teacher_rows, self.autocast,
            teacher_index=taught_index, teacher_view=view,
        )  # fmt: skip

    def _targets(self, index: Tensor) -> Tensor:
        return smoothed_targets(self.labels[index], self.n_classes, self.recipe.label_smoothing)

    def _mixed(self, mix: Mix, whole: Tensor, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """Student's images, teacher's images and targets, each row mixed with the one before it in the whole batch.

        Of several processes each augments its own rows and the one before its first, so that their batches are those of one process.
        """
        index = own_rows(whole)
        rows = index if len(index) == len(whole) else torch.cat([own_rows(whole.roll(1))[:1], index])

        def mixed(shown: Tensor) -> Tensor:
            return mix.images(*with_rows_before(self.augment(self.images, shown, epoch), len(index)))

        images = mixed(rows)
        taught = images if self.partners is None else mixed(self.partners[rows])
        return images, taught, mix.targets(*with_rows_before(self._targets(rows), len(index)))

    def _shown_apart(self, images: Tensor, taught: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The method's views where the teacher is shown other images: the student's rows of the one, the teacher's of the other."""
        assert self.views is not None
        student_rows, _, shared = self.views(images, keys)
        return student_rows, self.views(taught, keys)[1], shared


def resident(images: np.ndarray, device: torch.device) -> Tensor:
    """The uint8 images as a tensor on the device; on a CPU without a copy, also where they are memory-mapped read-only."""
    with warnings.catch_warnings():
        # torch warns that writing to a read-only array would be undefined; nothing here writes to images.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(images).to(device)


def smoothed_targets(labels: Tensor, n_classes: int, smoothing: float) -> Tensor:
    """Target distributions [batch, classes]: one-hot, smoothed towards uniform; all zero where the label is -1."""
    one_hot = torch.nn.functional.one_hot(labels.clamp(min=0), n_classes).float()
    return ((1 - smoothing) * one_hot + smoothing / n_classes) * (labels >= 0)[:, None]
