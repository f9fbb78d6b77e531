import numpy as np
import pytest

from crossdistill.core.errors import ImageError, SettingError
from crossdistill.core.types import UNLABELLED, ImageSet
from crossdistill.metrics.shape_bias import shape_bias
from crossdistill.probes._build import Supply, build_probe_set, probe_recipe
from crossdistill.probes.cue_conflict import REDRAWS, cue_conflict, filled, of_other_classes, patches, repeated, textures_of

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
    factors = {"shape": images.labels, "texture": np.arange(24) + 100, "colour": np.arange(24) + 200, "other": np.zeros(24, np.int64)}
    known = ImageSet(images.images, images.labels, images.ids, images.class_names, factors=factors)
    rows = np.array([9, 4])
    probed = made(known, rows=rows)
    partner = probed.factors["partner"]
    expected = {"shape": images.labels[rows], "texture": partner + 100, "colour": partner + 200, "partner": partner}
    assert {name: values.tolist() for name, values in probed.factors.items()} == {name: v.tolist() for name, v in expected.items()}


def test_images_whose_class_is_not_their_shape_are_refused():
    images = objects()
    other = ImageSet(images.images, images.labels, images.ids, images.class_names, factors={"shape": np.roll(images.labels, 1)})
    with pytest.raises(ImageError, match="the classes of these images are not their shapes: choose images whose label is the shape"):
        made(other)


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


def test_stripes_keep_their_direction():
    rows, columns = np.arange(32)[:, None], np.arange(32)
    stripes = ((rows + columns) % 4 < 2) * np.uint8(200)  # falling to the left; the other diagonal has none
    texture = textures_of(np.broadcast_to(stripes, (1, 3, 32, 32)), np.full((1, 32, 32), 255, np.uint8))[0, 0]
    # A period of 4 fits twice into the patch of 8 pixels: the stripes go on across its edges.
    assert np.array_equal(texture[1:, :-1], texture[:-1, 1:])
    assert not np.array_equal(texture[1:, 1:], texture[:-1, :-1])
    assert repeated(5, np.array([3]), np.array([2])).tolist() == [[3, 4, 3, 4, 3]]


def test_white_and_black_are_the_grounds_of_the_presets():
    for preset in ("quick", "full"):
        assert [level["ground"] for level in probe_recipe("cue_conflict", (32, 32), preset=preset).levels] == ["white", "black"]
    assert np.array_equal(made(objects()).images, made(objects(), ground="white").images)


def test_another_ground_is_refused():
    with pytest.raises(SettingError, match="ground must be 'white' or 'black' or 'grey', got 'green'"):
        made(objects(), ground="green")


def test_rare_textures_are_equally_likely_wherever_they_stand():
    # Four of 2,004 images give a texture, three of them side by side: a walk on from a draw would end at the first of these.
    labels = np.r_[np.zeros(4, int), np.ones(2000, int)]
    rare = np.array([1000, 1001, 1002, 1900])
    images = ImageSet(np.zeros((2004, 3, 16, 16), np.uint8), labels, np.arange(2004).astype(str), ("a", "b"))

    def few(part):
        return np.where(np.isin(part.ids.astype(int), [*range(4), *rare])[:, None, None], masks_of_size_twelve(len(part)), 0).astype(
            np.uint8
        )

    own = images.subset(np.zeros(400, int))
    probed = cue_conflict(own.images, own.labels, np.arange(400), 1, few(own), images, few)
    counts = [np.sum(probed.factors["partner"] == row) for row in rare]
    assert sum(counts) == 400
    # Binomial with a mean of 100 and a standard deviation of 8.7; five of these are allowed.
    assert max(abs(count - 100) for count in counts) < 44
    assert 0.2 < 1 - (1 - 4 / 2000) ** REDRAWS < 0.8, "some are found by redrawing, some by looking at all"


def masks_of_size_twelve(n):
    mask = np.zeros((16, 16), np.uint8)
    mask[2:14, 2:14] = 255
    return np.broadcast_to(mask, (n, 16, 16))


def test_where_no_other_class_is_left_no_row_is_chosen():
    assert of_other_classes(np.array([4, 5]), np.array([1, 1]), np.array([1, 0]), np.zeros(2, np.uint64)).tolist() == [-1, 4]
    assert of_other_classes(np.array([], int), np.array([], int), np.array([1]), np.zeros(1, np.uint64)).tolist() == [-1]


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
