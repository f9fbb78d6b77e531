"""TrivialAugment, RandAugment and colour jitter by keyed draws: torchvision's operations, in its strengths, as often."""

from collections import Counter
from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from crossdistill.ops.random import image_keys
from crossdistill.train import jitter
from crossdistill.train.color import BINS, RAND_STRENGTH, SIGNED, operations, rand_strengths, recolored, trivial_strengths

IMAGES = torch.randint(0, 256, (8, 3, 24, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)) // 2
THEIRS: dict[str, Any] = {"trivial_augment": v2.TrivialAugmentWide(), "rand_augment": v2.RandAugment()}
STRENGTHS = {"trivial_augment": trivial_strengths(), "rand_augment": rand_strengths(24, 20)}


def their_name(name: str) -> str:
    special = {"autocontrast": "AutoContrast", "saturation": "Color"}
    return special.get(name, name.title().replace("_", ""))


@pytest.mark.parametrize("policy", THEIRS)
def test_operations_and_strengths_are_torchvisions(policy: str) -> None:
    space = THEIRS[policy]._AUGMENTATION_SPACE
    assert {their_name(name) for name in operations()} == set(space)
    for name in operations():
        magnitudes, signed = space[their_name(name)]
        expected = magnitudes(BINS, 24, 20)
        assert STRENGTHS[policy].get(name) == (None if expected is None else expected.tolist()), name
        assert (name in SIGNED) == signed


@pytest.mark.parametrize("name", operations())
def test_each_operation_is_torchvisions_and_treats_every_image_as_if_it_were_alone(name: str) -> None:
    theirs = THEIRS["trivial_augment"]
    for number in (3, RAND_STRENGTH, 30):
        for sign in (1, -1) if name in SIGNED else (1,):
            strength = sign * STRENGTHS["trivial_augment"].get(name, [0.0] * BINS)[number]
            together = operations()[name](IMAGES, strength)
            for row, image in enumerate(IMAGES):
                expected = theirs._apply_image_or_video_transform(image, their_name(name), strength, theirs.interpolation, theirs._fill)
                assert torch.equal(together[row], expected)


def test_trivial_augment_applies_one_operation_of_its_choice_each_equally_often() -> None:
    keys = image_keys(5, torch.arange(2000))
    image = IMAGES[:1]
    shown = recolored(image.expand(2000, -1, -1, -1), keys, "trivial_augment")
    strengths = {
        name: [sign * value for value in values for sign in ((1, -1) if name in SIGNED else (1,))]
        for name, values in {**{name: [0.0] for name in operations()}, **STRENGTHS["trivial_augment"]}.items()
    }
    made = {}
    for name, values in strengths.items():
        for value in values:
            made.setdefault(operations()[name](image, value)[0].numpy().tobytes(), name)  # weak ones all leave the image as it is
    counts = Counter(made[result.numpy().tobytes()] for result in shown)
    assert counts["equalize"] == pytest.approx(2000 / 14, abs=58)  # five standard deviations, sqrt(2000 / 14 * 13 / 14) = 11.5
    assert counts["rotate"] == pytest.approx(2000 / 14, abs=58 + 5)  # one strength in 31 is none
    assert counts["identity"] > 2000 / 14  # and whatever was too weak to change a pixel


def test_rand_augment_applies_two_operations_in_a_row() -> None:
    image, draws = IMAGES[:1], 400
    shown = recolored(image.expand(draws, -1, -1, -1), image_keys(5, torch.arange(draws)), "rand_augment")
    signs = {name: (1, -1) if name in SIGNED else (1,) for name in operations()}
    strength = {name: STRENGTHS["rand_augment"].get(name, [0.0] * BINS)[RAND_STRENGTH] for name in operations()}
    once = [operations()[name](image, sign * strength[name]) for name in operations() for sign in signs[name]]
    twice = {
        operations()[name](first, sign * strength[name])[0].numpy().tobytes() for first in once for name in signs for sign in signs[name]
    }
    single = {first[0].numpy().tobytes() for first in once}
    results = [result.numpy().tobytes() for result in shown]
    assert set(results) <= twice
    assert sum(result not in single for result in results) > draws / 2  # most pairs differ from any one operation


def test_draws_leave_torchs_generator_and_the_images_as_they_were() -> None:
    before, images = torch.random.get_rng_state(), IMAGES.clone()
    recolored(images, image_keys(5, torch.arange(8)), "rand_augment")
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(images, IMAGES)


@pytest.mark.parametrize("name", jitter.KINDS)
def test_each_change_of_colour_jitter_is_torchvisions(name: str) -> None:
    images = torch.randint(0, 256, (64, 3, 24, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    images[0], images[1, 0] = 130, images[1, 1]  # greys, and two channels that share the maximum
    for amount in (-1.0, -0.37, 0.0, 0.2, 1.0):
        ours = jitter.operations()[name](images, torch.full((len(images),), amount))
        strength = jitter.TURN * amount if name == "hue" else 1 + jitter.STRENGTH * amount
        theirs = getattr(v2.functional, f"adjust_{name}")(images, strength)
        apart = (ours.int() - theirs.int()).abs()
        assert apart.max() <= 1
        assert (apart > 0).float().mean() < 0.1  # theirs cuts hues where ours rounds; elsewhere a last bit decides what is cut


def test_colour_jitter_takes_torchvisions_ranges_evenly_and_every_order_as_often() -> None:
    theirs = v2.ColorJitter(jitter.STRENGTH, jitter.STRENGTH, jitter.STRENGTH, jitter.TURN)
    assert (theirs.brightness, theirs.contrast, theirs.saturation, theirs.hue) == (*[(0.6, 1.4)] * 3, (-0.5, 0.5))
    amounts, order = jitter.drawn(image_keys(5, torch.arange(24_000)))
    assert amounts.abs().max() <= 1
    quartiles = torch.quantile(amounts, torch.tensor([0.25, 0.5, 0.75], dtype=amounts.dtype), dim=0)
    assert quartiles == pytest.approx(torch.tensor([[-0.5], [0.0], [0.5]], dtype=amounts.dtype).expand(3, 4), abs=0.04)  # 5 s.e.
    counts = Counter(map(tuple, order.tolist()))
    assert len(counts) == 24
    assert all(count == pytest.approx(1000, abs=155) for count in counts.values())  # five standard deviations


def test_colour_jitter_treats_every_image_as_if_it_were_alone_and_in_the_order_of_its_draws() -> None:
    keys = image_keys(7, torch.arange(8))
    amounts, order = jitter.drawn(keys)
    together = recolored(IMAGES, keys, "jitter")
    for row in range(len(IMAGES)):
        expected = IMAGES[row : row + 1]
        for kind in order[row].tolist():
            expected = jitter.operations()[jitter.KINDS[kind]](expected, amounts[row : row + 1, kind])
        assert torch.equal(together[row], expected[0])
        assert torch.equal(recolored(IMAGES[row : row + 1], keys[row : row + 1], "jitter")[0], together[row])
    assert len({tuple(of.tolist()) for of in order}) > 1


def test_colour_jitter_leaves_the_images_as_they_were() -> None:
    before = IMAGES.clone()
    recolored(IMAGES, image_keys(5, torch.arange(8)), "jitter")
    assert torch.equal(IMAGES, before)
