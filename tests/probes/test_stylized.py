import numpy as np
import pytest
import torch
from torch import nn

from crossdistill.core.errors import ImageError, SettingError
from crossdistill.probes._build import Supply, build_probe_set
from crossdistill.probes._gatys import content_layer, gram, resized
from crossdistill.probes._styles import style_supply
from crossdistill.probes.stylized import chosen_styles, styles_of_other_classes, stylized

STEPS = 12


@pytest.fixture(scope="module")
def encoder():
    """Two fixed random convolutions, the second on halved maps; its weights ask for gradients, as a user's may."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)

    def encode(images):
        shallow = first(images - 0.5).relu()
        return [shallow, second(nn.functional.avg_pool2d(shallow, 4)).relu()]

    encode.weights = first.weight
    return encode


@pytest.fixture
def styles(make_images):
    return style_supply("textures", make_images(1)).of(None)[:5]


def stylised(images, encoder, styles, rows=None, *, seed=1, **level):
    rows = np.arange(len(images)) if rows is None else rows
    level = {"steps": STEPS, "side": 32, **level}
    return stylized(images.images[rows], images.labels[rows], rows, seed, encoder, styles, **level)


def grams(encoder, images):
    with torch.no_grad():
        return [gram(values) for values in encoder(torch.from_numpy(images).float() / 255)]


def test_gram_matrices_are_means_over_positions_and_channels():
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    expected = np.einsum("nchw,ndhw->ncd", values, values) / (3 * 4 * 5)
    np.testing.assert_allclose(gram(torch.from_numpy(values)).numpy(), expected, rtol=1e-5, atol=1e-6)  # float32 sums of 20 products


def test_content_is_read_where_a_position_has_eight_pixels():
    assert content_layer([(64, 64), (32, 32), (16, 16), (8, 8)], (64, 64)) == 3
    assert content_layer([(56, 56), (28, 28), (14, 14), (7, 7)], (224, 224)) == 1


def test_statistics_go_over_to_the_style_and_content_stays(make_images, encoder, styles):
    images = make_images(6)
    made = stylised(images, encoder, styles, steps=30)
    wanted = resized(torch.from_numpy(styles[made.factors["style"]]).float() / 255, (32, 32)).mul(255).byte().numpy()
    for before, after, style in zip(*(grams(encoder, shown) for shown in (images.images, made.images, wanted)), strict=True):
        distance_before, distance_after = ((shown - style).square().sum(dim=(1, 2)) for shown in (before, after))
        assert (distance_after < 0.5 * distance_before).all()
    content, swapped = (encoder(torch.from_numpy(shown).float() / 255)[-1] for shown in (images.images, made.images))
    other = content.roll(1, dims=0)
    assert ((swapped - content).square().sum(dim=(1, 2, 3)) < (swapped - other).square().sum(dim=(1, 2, 3))).all()


def test_a_larger_alpha_takes_more_of_the_style(make_images, encoder, styles):
    images = make_images(6)
    distances = [np.abs(stylised(images, encoder, styles, alpha=alpha).images.astype(int) - images.images).mean() for alpha in (0, 0.3, 1)]
    assert distances[0] == 0
    assert distances[0] < distances[1] < distances[2]


def test_an_image_does_not_depend_on_its_company(make_images, encoder, styles):
    images = make_images(6)
    whole = stylised(images, encoder, styles).images.astype(int)
    alone = np.concatenate([stylised(images, encoder, styles, np.array([row])).images for row in range(6)])
    # Sums of another order differ in the last bits, and Adam may amplify one where a gradient is nearly zero.
    assert np.abs(whole - alone).mean() < 0.1
    assert np.abs(whole - alone).max() <= 8


def test_twice_on_one_machine_gives_equal_bytes(make_images, encoder, styles):
    first, second = (stylised(make_images(4), encoder, styles).images for _ in range(2))
    assert np.array_equal(first, second)


def test_enlarged_images_come_back_in_their_own_size(make_images, encoder, styles):
    images = make_images(2, 33, 47)
    made = stylised(images, encoder, styles, side=64, alpha=1e-6, steps=1)
    assert made.images.shape == images.images.shape
    # Enlarging and averaging alone: ramps survive to a few grey levels, apart from the jumps at which they begin anew.
    assert np.median(np.abs(made.images.astype(int) - images.images)) <= 4


def test_an_encoder_is_asked_at_the_size_it_was_made_for(make_images, styles):
    seen = []

    class Wide:
        side = 96

        def __call__(self, images):
            seen.append(tuple(images.shape[2:]))
            return [images, nn.functional.avg_pool2d(images, 8)]

    images = make_images(1)
    stylized(images.images, images.labels, np.arange(1), 0, Wide(), styles, steps=1)
    assert set(seen) == {(96, 96)}
    seen.clear()
    Wide.side = 32  # smaller than what a texture needs
    stylized(images.images, images.labels, np.arange(1), 0, Wide(), styles, steps=1)
    assert set(seen) == {(64, 64)}


def test_the_encoders_weights_are_left_alone(make_images, encoder, styles):
    before = encoder.weights.detach().clone()
    stylised(make_images(2), encoder, styles)
    assert encoder.weights.grad is None
    assert torch.equal(encoder.weights, before)


def test_each_image_has_its_own_style_at_all_levels(make_images, encoder, styles):
    images = make_images(40)
    mild = stylised(images, encoder, styles, alpha=0.5, steps=1).factors["style"]
    assert np.array_equal(mild, stylised(images, encoder, styles, alpha=0.0).factors["style"])
    assert len(np.unique(mild)) == len(styles)
    assert (mild != stylised(images, encoder, styles, alpha=0.0, seed=2).factors["style"]).mean() > 0.5


def test_no_image_is_its_own_style(make_images):
    images = make_images(20)
    chosen = chosen_styles(images.images, np.arange(20), 3, images.images)
    assert (chosen != np.arange(20)).all()
    assert len(np.unique(chosen)) > 5


def test_styles_with_classes_come_from_other_classes(make_images, encoder):
    images, supply = make_images(24), style_supply("images", make_images(24))
    styles, style_labels = supply.of(images), supply.labels
    everything = np.arange(24)
    made = stylized(images.images, images.labels, everything, 1, encoder, styles, style_labels, alpha=0.0)
    assert (style_labels[made.factors["style"]] != images.labels).all()
    without = stylized(images.images, images.labels, everything, 1, encoder, styles, alpha=0.0)
    assert (style_labels[without.factors["style"]] == images.labels).any()
    drawn = [
        chosen_styles(images.images, everything, seed, styles, styles_of_other_classes(images.labels, style_labels)) for seed in range(200)
    ]
    # Of 18 styles each is missed by 200 draws with a chance of 1.1e-5: none of 24 images misses one but for once in 200.
    assert all(len(np.unique(column)) >= 17 for column in np.array(drawn).T)


def test_the_builder_hands_over_the_classes_of_styles(make_images, encoder, tmp_path):
    images = make_images(24)
    supplies = {"encoder": Supply(lambda block: encoder, "tiny", {}), "styles": style_supply("images", images)}
    built = build_probe_set("stylized", images, levels=[{"alpha": 0.0}], folder=tmp_path, supplies=supplies)
    assert (supplies["styles"].labels[built.images(0, 0).factors["style"]] != images.labels).all()


def test_a_set_of_one_class_has_no_styles_of_another(make_images, encoder, styles):
    images = make_images(2)
    with pytest.raises(ImageError, match="stylized takes styles from images of other classes, but there are none"):
        stylized(images.images, np.zeros(2, int), np.arange(2), 1, encoder, styles, np.zeros(len(styles), int))


def test_a_set_names_its_encoder_and_styles_and_is_built_in_blocks_of_64(make_images, encoder, tmp_path):
    sizes = []

    def counted(images):
        sizes.append(len(images))
        return encoder(images)

    images = make_images(70, 8, 8)
    supplies = {"encoder": Supply(lambda block: counted, "tiny", {"name": "tiny"}), "styles": style_supply(None, images)}
    level = {"steps": 1, "side": 8}
    built = build_probe_set("stylized", images, levels=[level], folder=tmp_path, supplies=supplies)
    assert set(sizes) - {1} >= {64, 6}
    assert built.manifest["supplies"]["encoder"]["name"] == "tiny"
    assert len(built.manifest["supplies"]["styles"]["styles"]) > 100
    assert built.images(0, 0).factors["style"].dtype == np.int64


@pytest.mark.parametrize(
    ("level", "text"),
    [
        ({"alpha": 1.5}, r"alpha is the style's share, 0 to 1, got 1\.5"),
        ({"style_weight": 0.0}, r"style_weight must be above 0, got 0\.0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"side": 4}, "side must be at least 8 pixels, got 4"),
    ],
)
def test_values_out_of_range_are_refused(make_images, encoder, styles, level, text):
    with pytest.raises(SettingError, match=text):
        stylised(make_images(1), encoder, styles, **level)


def test_without_an_encoder_it_says_how_to_get_one(make_images, tmp_path):
    with pytest.raises(SettingError, match=r"probe 'stylized' needs encoder: give --encoder FILE\.safetensors"):
        build_probe_set("stylized", make_images(2), folder=tmp_path)
