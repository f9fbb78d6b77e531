"""mixup and CutMix by hand, and when they are drawn."""

import pytest
import torch

from crossdistill.core.recipe import TrainingConfig
from crossdistill.train.mixing import Mix, cut, step_mix, with_rows_before

OWN = torch.tensor([0, 100], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4)
OTHER = OWN.roll(1, 0)


def test_mixup_by_hand() -> None:
    mix = Mix(0.75)
    assert mix.images(OWN, OTHER)[:, 0, 0, 0].tolist() == pytest.approx([25 / 255, 75 / 255])
    assert mix.targets(torch.eye(2), torch.eye(2).roll(1, 0)).tolist() == [[0.75, 0.25], [0.25, 0.75]]


def test_cutmix_by_hand() -> None:
    mix = Mix(share=1 - 2 / 16, box=(1, 2, 3, 3))
    mixed = mix.images(OWN, OTHER)
    assert mixed[0, 0].tolist() == [[0, 0, 0, 0], [0, 0, 100, 0], [0, 0, 100, 0], [0, 0, 0, 0]]
    assert mixed[1, 2].tolist() == [[100] * 4, [100, 100, 0, 100], [100, 100, 0, 100], [100] * 4]
    assert mix.targets(torch.eye(2), torch.eye(2).roll(1, 0)).tolist() == [[0.875, 0.125], [0.125, 0.875]]
    assert OWN[0].max() == 0  # a copy: the first image is as it was


@pytest.mark.parametrize("size", [(32, 32), (33, 17), (5, 9)])
@pytest.mark.parametrize("share", [0.5, 0.6, 0.99, 1.0])
def test_a_box_covers_at_most_the_share_drawn_and_targets_have_its_real_area(size: tuple[int, int], share: float) -> None:
    for down, across in ((0.0, 0.0), (0.5, 0.5), (0.999, 0.3)):
        mix = cut(share, size, down, across)
        assert mix.box is not None
        black, white = torch.zeros(1, 3, *size, dtype=torch.uint8), torch.full((1, 3, *size), 255, dtype=torch.uint8)
        covered = (mix.images(black, white) == 255)[0, 0].double().mean().item()
        assert mix.share == pytest.approx(1 - covered)
        assert share - 1e-9 <= mix.share <= 1


def test_a_row_that_would_not_stay_its_own_image_is_refused() -> None:
    with pytest.raises(ValueError, match="share is 0.5 to 1, got 0.25"):
        Mix(0.25)


def test_half_a_target_is_none() -> None:
    own, other = torch.eye(3), torch.eye(3).roll(1, 0)
    other[1] = 0  # the second image's neighbour has no label
    own[2] = 0  # the third image has none itself
    assert Mix(0.75).targets(own, other).tolist() == [[0.75, 0, 0.25], [0, 0, 0], [0, 0, 0]]


def test_each_step_draws_mixup_or_cutmix_equally_often_where_both_are_on() -> None:
    both = TrainingConfig(mixup=0.8, cutmix=1.0)
    mixes = [step_mix(both, (32, 32), step, 0, "student", 0) for step in range(1000)]
    cuts = sum(mix is not None and mix.box is not None for mix in mixes)
    assert cuts == pytest.approx(500, abs=79)  # five standard deviations of 1,000 tosses
    assert mixes[3] == step_mix(both, (32, 32), 3, 0, "student", 0)
    assert mixes[3] != step_mix(both, (32, 32), 3, 0, "student", 1)


def test_one_of_them_alone_is_always_drawn_and_none_without_them() -> None:
    only_mixup, only_cutmix = TrainingConfig(mixup=0.8), TrainingConfig(cutmix=1.0)
    assert all((mix := step_mix(only_mixup, (8, 8), step, 0)) and mix.box is None for step in range(30))
    assert all((mix := step_mix(only_cutmix, (8, 8), step, 0)) and mix.box for step in range(30))
    assert step_mix(TrainingConfig(), (8, 8), 0, 0) is None


def test_shares_of_cutmix_are_uniform_above_a_half_where_alpha_is_one() -> None:
    mixes = [step_mix(TrainingConfig(cutmix=1.0), (1000, 1000), step, 0) for step in range(500)]
    uncut = torch.tensor([mix.share for mix in mixes if mix and mix.box and mix.box[0] > 0 and mix.box[1] > 0 and max(mix.box) < 1000])
    assert len(uncut) > 100
    assert uncut.min() >= 0.5
    assert uncut.max() > 0.95


def test_the_row_before_is_that_of_the_circle_or_the_one_in_front() -> None:
    own, other = with_rows_before(torch.tensor([4, 5, 6]), 3)
    assert (own.tolist(), other.tolist()) == ([4, 5, 6], [6, 4, 5])
    own, other = with_rows_before(torch.tensor([9, 4, 5, 6]), 3)
    assert (own.tolist(), other.tolist()) == ([4, 5, 6], [9, 4, 5])
