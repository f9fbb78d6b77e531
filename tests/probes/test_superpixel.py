import numpy as np
import pytest
from skimage import color, data, segmentation, transform

from crossdistill.core.errors import SettingError
from crossdistill.probes.superpixel import full_levels, mean_colours, quick_levels, superpixel


def photograph(side=64):
    picture = transform.resize(data.astronaut()[:256, 100:356], (side, side), anti_aliasing=True)
    return np.round(picture * 255).astype(np.uint8)


def painted(images, **level):
    return superpixel(images, np.zeros(len(images), np.int64), **level)


def test_is_slic_painted_by_label2rgb():
    image = photograph()
    made = painted(image.transpose(2, 0, 1)[None], n_segments=49)
    segments = segmentation.slic(image, n_segments=49, compactness=10, start_label=1, channel_axis=-1)
    expected = color.label2rgb(segments, image / 255, kind="avg")
    # Both round the same mean; a mean of exactly a half may go to either side.
    assert np.abs(made.images[0].transpose(1, 2, 0) - expected * 255).max() <= 0.5 + 1e-9
    assert made.factors["segments"].tolist() == [len(np.unique(segments))]


def test_mean_colours_do_not_change_what_is_plain_already():
    image = photograph(32)
    segments = np.arange(32 * 32).reshape(32, 32)
    assert np.array_equal(mean_colours(image, segments), image)


def test_fewer_segments_hold_fewer_colours():
    image = photograph().transpose(2, 0, 1)[None]
    counts = [painted(image, n_segments=n).factors["segments"][0] for n in (100, 49, 16)]
    assert counts == sorted(counts, reverse=True)
    for n in (100, 16):
        made = painted(image, n_segments=n)
        colours = np.unique(made.images[0].reshape(3, -1).T, axis=0)
        assert len(colours) <= made.factors["segments"][0]


def test_a_plain_image_stays_as_it_is():
    plain = np.full((1, 3, 32, 32), 77, np.uint8)
    assert np.array_equal(painted(plain, n_segments=16).images, plain)


def test_one_segment_is_the_mean_colour():
    image = photograph(32)
    made = painted(image.transpose(2, 0, 1)[None], n_segments=1).images[0]
    expected = np.floor(image.reshape(-1, 3).mean(axis=0) + 0.5)
    assert np.array_equal(made[:, 5, 7], expected)


def test_levels_grow_with_the_area_between_the_published_ones():
    levels = [[level["n_segments"] for level in full_levels((side, side))] for side in (28, 32, 64, 96, 128, 224, 384)]
    assert levels[0] == levels[1] == [64, 36, 16]
    assert levels[-1] == levels[-2] == [196, 100, 64, 25]
    finest = [counts[0] for counts in levels]
    assert finest == sorted(finest)
    assert [level["n_segments"] for level in quick_levels((224, 224))] == [100, 64, 25]


@pytest.mark.parametrize("n_segments", [-1, 1025])
def test_counts_out_of_range_are_refused(n_segments):
    with pytest.raises(SettingError, match=f"n_segments must be 0 .none. to 1024.*got {n_segments}"):
        painted(np.zeros((1, 3, 32, 32), np.uint8), n_segments=n_segments)
