import numpy as np
import pytest

from crossdistill.core.errors import ImageError
from crossdistill.core.types import UNLABELLED, ImageSet
from crossdistill.metrics.shape_bias import shape_bias
from crossdistill.probes._build import Supply, build_probe_set
from crossdistill.probes.cue_conflict import cue_conflict, filled, mirrored, patches, textures_of

SHAPES, COLOURS = 4, ((200, 40, 40), (40, 200, 40), (40, 40, 200), (180, 180, 60))


def outline(shape, side=32):
    """Four outlines that differ in height and width: the class can be read off them."""
    mask = np.zeros((side, side), np.uint8)
    height, width = ((28, 12), (12, 28), (12, 12), (26, 26))[shape]
    mask[(side - height) // 2 : (side + height) // 2, (side - width) // 2 : (side + width) // 2] = 255
    return mask


def objects(n=24, side=32):
    """Objects whose outline and colours both name the class, on a ground of noise; ids tell the row."""
    labels = np.arange(n) % SHAPES
    noise = np.random.default_rng(1).integers(0, 255, (n, 3, side, side), np.uint8)
    stripes = (np.arange(side) % 3 * 8).astype(np.uint8)  # texture, so that a patch is more than one colour
    paint = np.array(COLOURS, np.uint8)[labels][:, :, None, None] + stripes
    images = np.where(masks_of_labels(labels, side)[:, None] > 0, paint, noise)
    return ImageSet(images.astype(np.uint8), labels, np.arange(n).astype(str), tuple("abcd"))


def masks_of_labels(labels, side=32):
    return np.stack([outline(label, side) for label in labels]) if len(labels) else np.zeros((0, side, side), np.uint8)


def mask_of(images):
    return masks_of_labels(images.labels, images.size[0])


def made(images, seed=5, rows=None, **level):
    rows = np.arange(len(images)) if rows is None else rows
    part = images.subset(rows)
    return cue_conflict(part.images, part.labels, rows, seed, mask_of(part), images, mask_of, **level)


def reads_shape(images, ground):
    """The class whose outline it is: where the image is not ground."""
    found = (images != ground).any(axis=1)
    return np.array([[np.array_equal(one, outline(shape) > 0) for shape in range(SHAPES)].index(True) for one in found])


def reads_texture(images, ground):
    """The class whose colour the object has, wherever it stands."""
    inside = (images != ground).any(axis=1)
    mean = (images * inside[:, None]).sum(axis=(2, 3)) / inside.sum(axis=(1, 2))[:, None]
    return np.abs(mean[:, None] - np.array(COLOURS)).sum(axis=2).argmin(axis=1)


@pytest.mark.parametrize(("ground", "level"), [("grey", 128), ("white", 255), ("black", 0)])
def test_an_oracle_of_shape_has_shape_bias_one_and_of_texture_zero(ground, level):
    probed = made(objects(), ground=ground)
    shape, texture = probed.factors["shape"], probed.factors["texture"]
    assert np.array_equal(probed.labels, shape)
    assert shape_bias(reads_shape(probed.images, level), shape, texture).value == 1.0
    assert shape_bias(reads_texture(probed.images, level), shape, texture).value == 0.0
    assert (shape != texture).all()


def test_the_set_on_disk_carries_both_factors_for_the_metrics(tmp_path):
    images = objects()
    supplies = {"masks": Supply(mask_of, "outlines", {})}
    built = build_probe_set("cue_conflict", images, draws=2, folder=tmp_path, supplies=supplies)
    first, second = (built.images(0, draw) for draw in range(2))
    assert {"shape", "texture"} <= first.factors.keys()
    assert np.array_equal(first.labels, first.factors["shape"])
    assert not np.array_equal(first.factors["partner"], second.factors["partner"])
    direct = made(images, rows=np.array([7]), seed=3, ground="white")
    assert direct.images.shape == (1, 3, 32, 32)


def test_bytes_do_not_depend_on_order_or_company():
    images = objects()
    whole = made(images)
    some = np.array([20, 3, 9])
    part = made(images, rows=some)
    assert np.array_equal(part.images, whole.images[some])
    assert np.array_equal(part.factors["partner"], whole.factors["partner"][some])


def test_every_other_class_and_image_can_be_the_partner():
    images = objects(12)
    drawn = np.stack([made(images, seed=seed).factors["partner"] for seed in range(60)])
    for row in range(12):
        others = {other for other in range(12) if other % SHAPES != row % SHAPES}
        # Nine partners, 60 draws: one of them is missed with probability 9 * (8 / 9) ** 60 = 0.008 a row.
        assert len(others - set(drawn[:, row].tolist())) <= 1
        assert set(drawn[:, row].tolist()) <= others


def test_the_same_partner_serves_all_grounds():
    images = objects()
    white, black = made(images, ground="white"), made(images, ground="black")
    assert np.array_equal(white.factors["partner"], black.factors["partner"])
    inside = mask_of(images)[:, None] == 255
    assert np.array_equal(white.images * inside, black.images * inside)


def test_partners_without_a_usable_mask_give_way_to_others():
    images = objects(40)
    usable_rows = {"0", "1"}

    def few(part):
        return mask_of(part) * np.isin(part.ids, list(usable_rows))[:, None, None].astype(np.uint8)

    rows = np.arange(40)
    probed = cue_conflict(images.images, images.labels, rows, 1, mask_of(images), images, few)
    # Class 0 can only take row 1, class 1 only row 0, the others either.
    partner, label = probed.factors["partner"], probed.labels
    assert (partner[label == 0] == 1).all()
    assert (partner[label == 1] == 0).all()
    assert set(partner[label > 1].tolist()) == {0, 1}


def test_no_partner_at_all_is_an_error():
    images = objects(8)
    one_class = ImageSet(images.images, np.zeros(8, np.int64), images.ids, ("a",))
    with pytest.raises(ImageError, match="for class 0 there is none: of 8 images no other class has a usable mask"):
        cue_conflict(one_class.images, one_class.labels, np.arange(8), 1, mask_of(one_class), one_class, mask_of)


def test_unlabelled_images_are_dropped_and_give_no_texture():
    images = objects(16)
    labels = np.where(np.arange(16) < 8, images.labels, UNLABELLED)
    part = ImageSet(images.images, labels, images.ids, images.class_names)
    probed = cue_conflict(part.images, labels, np.arange(16), 1, mask_of(images), part, lambda wanted: mask_of(images.subset(ids(wanted))))
    assert probed.kept_index.tolist() == list(range(8))
    assert probed.factors["partner"].max() < 8


def ids(images):
    return images.ids.astype(np.int64)


def test_without_a_pool_partners_are_drawn_among_the_images_given():
    images = objects()
    probed = cue_conflict(images.images, images.labels, np.arange(24), 5, mask_of(images))
    assert np.array_equal(probed.images, made(images).images)


def test_what_the_source_knows_of_its_objects_holds_of_the_cues_that_they_give():
    images = objects()
    factors = {"shape": np.arange(24), "texture": np.arange(24) + 100, "colour": np.arange(24) + 200, "other": np.zeros(24, np.int64)}
    known = ImageSet(images.images, images.labels, images.ids, images.class_names, factors=factors)
    rows = np.array([9, 4])
    probed = made(known, rows=rows)
    partner = probed.factors["partner"]
    expected = {"shape": rows, "texture": partner + 100, "colour": partner + 200, "partner": partner}
    assert {name: values.tolist() for name, values in probed.factors.items()} == {name: v.tolist() for name, v in expected.items()}


def test_nothing_of_the_partners_ground_or_outline_is_left():
    images = objects()
    textures = textures_of(images.images, mask_of(images))
    # The ground is noise with every colour, the objects have three shades of one: nothing else may be there.
    for texture, label in zip(textures, images.labels, strict=True):
        expected = {tuple(channel + shade for channel in COLOURS[label]) for shade in (0, 8, 16)}
        assert {tuple(pixel) for pixel in texture.reshape(3, -1).T.tolist()} <= expected


@pytest.mark.parametrize(("side", "largest"), [(32, 8), (64, 16), (224, 56)])
def test_patches_are_at_most_a_quarter_of_the_side(side, largest):
    assert patches(np.full((1, side, side), 255, np.uint8))[2].tolist() == [largest]


def test_tiles_meet_without_a_seam():
    image = np.arange(24)[None, None, None, :].repeat(24, axis=2).repeat(3, axis=1).astype(np.uint8)
    texture = textures_of(image, np.full((1, 24, 24), 255, np.uint8))
    # A ramp mirrored at each edge: neighbours never differ by more than one step.
    assert np.abs(np.diff(texture.astype(int), axis=3)).max() == 1
    assert mirrored(5, np.array([0]), np.array([2])).tolist() == [[0, 1, 1, 0, 0]]


def test_filling_is_a_weighted_mean_rounded_half_up():
    generator = np.random.default_rng(0)
    masks, textures = generator.integers(0, 256, (3, 9, 9), np.uint8), generator.integers(0, 256, (3, 3, 9, 9), np.uint8)
    for ground in (0, 128, 255):
        expected = (masks[:, None] / 255) * textures + (1 - masks[:, None] / 255) * ground
        assert np.array_equal(filled(masks, textures, ground), np.floor(expected + 0.5 + 1e-9))  # 1e-9: exact halves, off by float error


def test_two_rows_of_a_thousand_classes_are_enough():
    images = objects(8)
    labels = np.arange(8) * 140
    probed = cue_conflict(images.images, labels, np.arange(8), 2, mask_of(images))
    assert (probed.factors["texture"] != labels).all()
