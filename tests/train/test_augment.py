"""Augmentation: keyed by image, so batch order and size cannot matter."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from crossdistill.core.errors import SettingError
from crossdistill.core.recipe import TrainingConfig, ViewsConfig
from crossdistill.core.study_file import parse_study
from crossdistill.train.augment import Augmentation

IMAGES = torch.arange(6 * 3 * 16 * 16).remainder(251).to(torch.uint8).view(6, 3, 16, 16)
RECIPES = [
    {},
    {"crop": "resized"},
    {"color": "trivial_augment"},
    {"color": "rand_augment"},
    {"random_erasing": 0.7},
    {"crop": "resized", "color": "trivial_augment", "random_erasing": 0.5},
]


def augmentation(views: ViewsConfig | str = ViewsConfig(), run: int = 0, study: int = 0, **recipe: Any) -> Augmentation:
    return Augmentation(TrainingConfig(views=views, **recipe), (16, 16), who=(study, "student", run))


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("views", [ViewsConfig(), "free"])
def test_an_image_gets_the_same_view_in_any_batch_and_order(views: ViewsConfig | str, recipe: dict[str, Any]) -> None:
    augment = augmentation(views, **recipe)
    together = augment(IMAGES, torch.arange(6), epoch=2)
    backwards = augment(IMAGES, torch.arange(5, -1, -1), epoch=2).flip(0)
    alone = torch.cat([augment(IMAGES, torch.tensor([row]), epoch=2) for row in range(6)])
    assert torch.equal(together, backwards)
    assert torch.equal(together, alone)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_views_change_with_the_epoch_and_the_run(recipe: dict[str, Any]) -> None:
    index = torch.arange(6)
    shown = augmentation(**recipe)(IMAGES, index, 0)
    assert not torch.equal(shown, augmentation(**recipe)(IMAGES, index, 1))
    assert not torch.equal(shown, augmentation(run=1, **recipe)(IMAGES, index, 0))


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_enumerated_view_of_a_number_is_the_same_for_every_run_and_another_for_another_study(recipe: dict[str, Any]) -> None:
    index, view = torch.arange(6), torch.tensor([0, 3, 5, 8, 12, 15])
    first = augmentation(**recipe).view(IMAGES, index, view)
    assert torch.equal(first, augmentation(run=1, **recipe).view(IMAGES, index, view))
    assert not torch.equal(first, augmentation(study=1, **recipe).view(IMAGES, index, view))


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_what_an_epoch_shows_is_the_enumerated_view_that_it_names(recipe: dict[str, Any]) -> None:
    augment, index = augmentation(**recipe), torch.tensor([5, 0, 2])
    numbers = augment.views_shown(index, 4)
    assert torch.equal(augment(IMAGES, index, 4), augment.view(IMAGES, index, numbers))


def test_enumerated_views_are_few_and_the_same_for_every_run() -> None:
    index = torch.arange(6)
    seen = [{augmentation(ViewsConfig(crops=2), run)(IMAGES, index, epoch)[0].numpy().tobytes() for epoch in range(40)} for run in (0, 1)]
    assert seen[0] == seen[1]
    assert 2 <= len(seen[0]) <= 4  # two crops, flipped or not; two crops may coincide


@pytest.mark.parametrize("crop", ["shift", "resized"])
def test_views_with_odd_numbers_are_mirrored(crop: str) -> None:
    augment = augmentation(crop=crop)
    index = torch.arange(6)
    straight, mirrored = (augment.view(IMAGES, index, torch.full((6,), number)) for number in (4, 5))
    assert torch.equal(straight.flip(3), mirrored)


def test_colours_and_erased_boxes_differ_between_the_views_of_an_image() -> None:
    augment = augmentation(ViewsConfig(crops=16, flip=False), random_erasing=1.0)
    shown = augment.view(IMAGES, torch.zeros(16, dtype=torch.int64), torch.arange(16))
    plain = augmentation(ViewsConfig(crops=16, flip=False)).view(IMAGES, torch.zeros(16, dtype=torch.int64), torch.arange(16))
    boxes = {(a != b).any(dim=0).numpy().tobytes() for a, b in zip(shown, plain, strict=True)}
    assert len(boxes) > 10  # of 16 boxes a few may coincide where a pixel had the mean colour already


def test_a_view_is_a_window_of_the_reflected_image() -> None:
    padded = np.pad(IMAGES[0].numpy(), ((0, 0), (2, 2), (2, 2)), mode="reflect")
    windows = {padded[:, y : y + 16, x : x + 16].tobytes() for y in range(5) for x in range(5)}
    flipped = {np.frombuffer(w, np.uint8).reshape(3, 16, 16)[:, :, ::-1].tobytes() for w in windows}
    free = augmentation("free")
    shown = [np.ascontiguousarray(free(IMAGES, torch.tensor([0]), epoch)[0].numpy()).tobytes() for epoch in range(60)]
    assert set(shown) <= windows | flipped
    assert set(shown) & windows
    assert set(shown) & flipped


def test_no_views_means_the_image_itself() -> None:
    assert torch.equal(augmentation("none")(IMAGES, torch.arange(6), 3), IMAGES)


@pytest.mark.parametrize("recipe", [{"color": "trivial_augment"}, {"random_erasing": 0.1}, {"crop": "resized"}])
def test_no_views_and_something_to_change_them_is_refused(recipe: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"`views: none` shows images as they are, and `{next(iter(recipe))}` would change them"):
        TrainingConfig(views="none", **recipe)


@pytest.mark.parametrize("scale", [(0.0, 1.0), (0.9, 0.5), (0.5, 1.1)])
def test_a_crop_scale_that_is_no_share_of_the_image_is_refused(scale: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="two shares of the image's area stand here"):
        TrainingConfig(crop_scale=scale)


@pytest.mark.parametrize(("size", "crop", "resizes"), [
    ((64, 64), "auto", False), ((65, 65), "auto", True), ((48, 96), "auto", True), ((32, 32), "resized", True), ((96, 96), "shift", False),
])  # fmt: skip
def test_crops_are_resized_above_64_pixels_or_on_request(size: tuple[int, int], crop: Any, resizes: bool) -> None:
    assert Augmentation(TrainingConfig(crop=crop), size, who=(0,)).resizes is resizes


def test_a_crop_scale_beside_shifted_crops_only_is_refused_as_idle() -> None:
    networks = "networks: {a: {model: small/resnet8}, b: {model: small/vit}}"
    text = f"images: trifeature\n{networks}\npairs: [{{teacher: b, student: a, methods: [kd]}}]\n"
    with pytest.raises(SettingError, match="line 4: training.crop_scale: `crop_scale` belongs to `crop: resized`"):
        parse_study(text + "training: {crop: shift, crop_scale: [0.5, 1]}")
    assert parse_study(text + "training: {crop_scale: [0.5, 1]}").training.crop_scale == (0.5, 1.0)
