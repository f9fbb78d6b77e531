import numpy as np
import pytest
from skimage.measure import block_reduce

from crossdistill.core.errors import SettingError
from crossdistill.probes.mosaic import cell_means, mosaic, mosaic_grid


def painted(images, **level):
    return mosaic(images, np.zeros(len(images), np.int64), **level)


@pytest.mark.parametrize(("n_segments", "cell"), [(64, 4), (16, 8), (1024, 1), (1, 32)])
def test_is_scikit_images_block_mean_where_cells_divide_the_image(make_images, n_segments, cell):
    images = make_images(4).images
    means = block_reduce(images.astype(np.int64), (1, 1, cell, cell), np.sum) / cell**2
    expected = np.floor(means + 0.5).repeat(cell, axis=2).repeat(cell, axis=3)
    made = painted(images, n_segments=n_segments)
    assert np.array_equal(made.images, expected)
    assert made.factors["segments"].tolist() == [n_segments] * 4


def test_uneven_cells_are_averaged_each_over_its_own_pixels(make_images):
    image = make_images(1, 33, 47).images
    made = cell_means(image, 4, 5)
    for top, bottom in [(0, 8), (8, 16), (16, 24), (24, 33)]:
        for left, right in [(0, 9), (9, 18), (18, 28), (28, 37), (37, 47)]:
            cell = image[0, :, top:bottom, left:right].astype(np.int64).reshape(3, -1)
            # Half up in integers, as the probe has it.
            expected = (2 * cell.sum(axis=1) + cell.shape[1]) // (2 * cell.shape[1])
            assert (made[0, :, top:bottom, left:right] == expected[:, None, None]).all()


@pytest.mark.parametrize(
    ("n_segments", "size", "grid"),
    [(36, (32, 32), (6, 6)), (3, (32, 32), (2, 2)), (48, (64, 48), (8, 6)), (1551, (33, 47), (33, 47)), (100, (2, 90), (1, 90))],
)
def test_cells_are_about_as_many_as_asked_and_about_square(n_segments, size, grid):
    assert mosaic_grid(n_segments, *size) == grid


@pytest.mark.parametrize("n_segments", [-1, 1025])
def test_counts_out_of_range_are_refused(n_segments):
    with pytest.raises(SettingError, match=f"n_segments must be 0 .none. to 1024.*got {n_segments}"):
        painted(np.zeros((1, 3, 32, 32), np.uint8), n_segments=n_segments)
