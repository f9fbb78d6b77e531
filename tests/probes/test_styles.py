import numpy as np
import pytest
from PIL import Image

from crossdistill.core.errors import ImageError
from crossdistill.probes._drawn_textures import FAMILIES, drawn_texture
from crossdistill.probes._styles import built_in_styles, style_supply


def test_more_than_a_hundred_different_styles_are_built_in():
    styles = built_in_styles(64)
    stacked = np.stack(list(styles.values()))
    assert stacked.dtype == np.uint8
    assert stacked.shape[1:] == (3, 64, 64)
    assert len(np.unique(stacked.reshape(len(stacked), -1), axis=0)) == len(styles) > 100
    # None is a plain surface: a style without texture would be a change of colour.
    assert stacked.std(axis=(2, 3)).max(axis=1).min() > 5


def test_drawn_textures_are_the_bytes_of_any_machine():
    import hashlib

    drawn = b"".join(drawn_texture(number, 64).tobytes() for number in range(len(FAMILIES)))
    assert hashlib.sha256(drawn).hexdigest()[:16] == "8d35a7190136e923"


@pytest.mark.parametrize("number", range(len(FAMILIES)))
def test_a_larger_side_shows_the_same_texture(number):
    small, large = drawn_texture(number, 64).astype(int), drawn_texture(number, 256)
    averaged = large.reshape(3, 64, 4, 64, 4).mean(axis=(2, 4))
    # Points on a grid against means over it: pixels cut by an edge differ, most do not.
    assert np.median(np.abs(averaged - small)) < 8


def test_styles_are_as_large_as_the_images_but_not_smaller_than_64(make_images):
    assert style_supply(None, make_images(2)).of(None).shape[2:] == (64, 64)
    assert style_supply("textures", make_images(2, 96, 128)).of(None).shape[2:] == (96, 96)


def test_other_images_of_the_set_can_be_the_styles(make_images):
    images = make_images(300)
    supply = style_supply("images", images)
    styles, names = supply.of(None), supply.about["styles"]
    assert len(styles) == len(names) == 256
    for style, name in zip(styles[:9], names[:9], strict=True):
        assert np.array_equal(style, images.images[images.ids.tolist().index(name)])
    assert supply.labels.tolist() == [images.labels[images.ids.tolist().index(name)] for name in names]
    assert style_supply("textures", images).labels is None


def test_a_folder_of_pictures_gives_styles_cropped_to_their_centre(make_images, tmp_path):
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60] = (200, 100, 0)
    (tmp_path / "deep").mkdir()
    Image.fromarray(picture).save(tmp_path / "deep" / "wide.png")
    Image.fromarray(picture[:, ::-1] // 2).save(tmp_path / "dark.jpg")
    supply = style_supply(str(tmp_path), make_images(2))
    assert supply.about["styles"] == ["dark.jpg", "deep/wide.png"]
    inside = supply.of(None)[1][:, :, 4:-4]  # scaling blurs the edge that the crop stands on
    assert (inside.reshape(3, -1) == [[200], [100], [0]]).all()


def test_equal_styles_have_one_identity_and_others_another(make_images):
    assert style_supply(None, make_images(2)).identity == style_supply("textures", make_images(3)).identity
    assert style_supply(None, make_images(2)).identity != style_supply("images", make_images(2)).identity


def test_folders_that_cannot_serve_are_refused(make_images, tmp_path):
    with pytest.raises(ImageError, match="there is no folder .*absent of style pictures"):
        style_supply(str(tmp_path / "absent"), make_images(2))
    with pytest.raises(ImageError, match="has no pictures"):
        style_supply(str(tmp_path), make_images(2))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.png cannot be read \(not an image\)"):
        style_supply(str(tmp_path), make_images(2))
