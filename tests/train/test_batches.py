"""Batches: what the teacher and the student are shown, alone and where several processes share a batch."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import Batch, Clock, ImageSet
from crossdistill.train import batches as module
from crossdistill.train.batches import Batches

N = 12
WHOLE = torch.tensor([7, 2, 11, 0, 5, 9])
MIXES = [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}]


def image_set(labels: np.ndarray | None = None) -> ImageSet:
    images = np.random.default_rng(0).integers(0, 256, (N, 3, 16, 16), dtype=np.uint8)
    return ImageSet(images, np.arange(N) % 3 if labels is None else labels, np.arange(N).astype(str), tuple("abc"))


def made(recipe: dict[str, Any], *, partners: np.ndarray | None = None, labels: np.ndarray | None = None, step: int = 5) -> Batch:
    batches = Batches(
        image_set(labels), TrainingConfig(**recipe), who=(0, "student", 0), device=torch.device("cpu"), views=None, partners=partners,
        autocast=nullcontext,
    )  # fmt: skip
    return batches(WHOLE, 1, Clock(step, 100, 1, 10))


@pytest.mark.parametrize("partners", [None, np.roll(np.arange(N), 3)])
@pytest.mark.parametrize("recipe", [{}, {"views": "free", "random_erasing": 0.5}, *MIXES], ids=str)
@pytest.mark.parametrize("step", [5, 6])
def test_two_processes_make_the_halves_of_the_batch_of_one(
    monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any], partners: np.ndarray | None, step: int
) -> None:
    whole = made(recipe, partners=partners, step=step)
    for rank in (0, 1):
        monkeypatch.setattr(module, "own_rows", lambda index, rank=rank: index.chunk(2)[rank])
        half = made(recipe, partners=partners, step=step)
        for name in ("images", "teacher_images", "labels", "targets", "index", "geometry_shared", "teacher_index"):
            assert torch.equal(getattr(half, name), getattr(whole, name).chunk(2)[rank]), name
        assert (half.teacher_view is None) == (whole.teacher_view is None)
        if whole.teacher_view is not None and half.teacher_view is not None:
            assert torch.equal(half.teacher_view, whole.teacher_view.chunk(2)[rank])


@pytest.mark.parametrize("recipe", MIXES, ids=str)
def test_a_mixed_row_is_for_the_most_part_its_own_image_with_its_label(recipe: dict[str, Any]) -> None:
    batch = made(recipe)
    assert torch.equal(batch.targets.argmax(dim=1), batch.labels)
    assert batch.targets.sum(dim=1).tolist() == pytest.approx([1.0] * len(WHOLE))
    assert batch.teacher_images is batch.images  # the teacher sees the mixed image
    assert batch.teacher_view is None  # which is no view of a list


def test_a_partner_is_mixed_as_its_image_is() -> None:
    """Where everybody's partner is the next row of the batch, the teacher is shown the student's batch, one row on."""
    partners = np.arange(N)
    partners[WHOLE] = np.roll(WHOLE.numpy(), -1)
    for recipe in MIXES:
        batch = made({"views": "none", **recipe}, partners=partners)
        assert torch.equal(batch.teacher_images, batch.images.roll(-1, 0))


def test_batches_do_not_depend_on_their_order_without_mixing() -> None:
    recipe = {"color": "rand_augment", "random_erasing": 0.5, "crop": "resized"}
    first = made(recipe)
    batches = Batches(
        image_set(), TrainingConfig(**recipe), who=(0, "student", 0), device=torch.device("cpu"), views=None, partners=None,
        autocast=nullcontext,
    )  # fmt: skip
    other = batches(WHOLE.flip(0), 1, Clock(77, 100, 1, 10))
    assert torch.equal(other.images.flip(0), first.images)


def test_images_without_a_label_have_no_target_and_neither_has_what_is_mixed_with_them() -> None:
    labels = np.arange(N) % 3
    labels[2] = -1  # the second row of the batch
    assert made({}, labels=labels).targets.sum(dim=1).tolist() == [1, 0, 1, 1, 1, 1]
    assert made({"mixup": 1.0}, labels=labels).targets.sum(dim=1).tolist() == pytest.approx([1, 0, 0, 1, 1, 1])
