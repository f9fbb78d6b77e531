import numpy as np
import pytest

from crossdistill.core.types import ImageSet


@pytest.fixture
def make_images():
    """A maker of image sets: smooth ramps, another slope for each image and channel; four classes in turn."""

    def make(n=8, height=32, width=32):
        rows, columns = np.arange(height)[:, None], np.arange(width)
        image, channel = np.arange(n)[:, None, None, None], np.arange(3)[:, None, None]
        images = ((image + 2) * rows + (channel + 1) * columns + 17 * image) % 256
        ids = np.array([f"{i:03}.png" for i in range(n)])
        return ImageSet(images.astype(np.uint8), np.arange(n) % 4, ids, ("ant", "bee", "cat", "dog"), {"source": "ramps"})

    return make
