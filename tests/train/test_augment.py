"""Augmentation: keyed by image, so batch order and size cannot matter."""

import numpy as np
import pytest
import torch

from crossdistill.core.config import TrainingConfig, ViewsConfig
from crossdistill.train.augment import Augmentation, _reflected, mixed_up

IMAGES = torch.arange(6 * 3 * 16 * 16).remainder(251).to(torch.uint8).view(6, 3, 16, 16)


def augmentation(views: ViewsConfig | str = ViewsConfig(), run: int = 0) -> Augmentation:
    return Augmentation(TrainingConfig(views=views), (16, 16), who=(0, "student", run))


@pytest.mark.parametrize("views", [ViewsConfig(), "free"])
def test_an_image_gets_the_same_view_in_any_batch(views: ViewsConfig | str) -> None:
    augment = augmentation(views)
    together = augment(IMAGES, torch.tensor([4, 1, 3]), epoch=2)
    assert torch.equal(together[1:2], augment(IMAGES, torch.tensor([1]), epoch=2))


def test_views_change_with_the_epoch_and_the_run() -> None:
    index = torch.arange(6)
    shown = augmentation()(IMAGES, index, 0)
    assert not torch.equal(shown, augmentation()(IMAGES, index, 1))
    assert not torch.equal(shown, augmentation(run=1)(IMAGES, index, 0))


def test_enumerated_views_are_few_and_the_same_for_every_run() -> None:
    index = torch.arange(6)
    seen = [{augmentation(ViewsConfig(crops=2), run)(IMAGES, index, epoch)[0].numpy().tobytes() for epoch in range(40)} for run in (0, 1)]
    assert seen[0] == seen[1]
    assert 2 <= len(seen[0]) <= 4  # two crops, flipped or not; two crops may coincide


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


def test_positions_outside_are_mirrored_at_the_border_pixel() -> None:
    assert _reflected(torch.tensor([-2, -1, 0, 3, 4, 5]), 4).tolist() == [2, 1, 0, 3, 2, 1]


def test_mixup_by_hand() -> None:
    images = torch.tensor([0, 100], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    mixed, targets = mixed_up(images, torch.eye(2), share=0.75)
    assert mixed[:, 0, 0, 0].tolist() == pytest.approx([25 / 255, 75 / 255])
    assert targets.tolist() == [[0.75, 0.25], [0.25, 0.75]]
    with pytest.raises(ValueError, match="0.5 to 1"):
        mixed_up(images, torch.eye(2), share=0.25)
