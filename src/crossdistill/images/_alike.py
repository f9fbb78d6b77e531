"""Images that show the same picture, however each was stored: the same one as PNG and as JPEG, say.

Two images are alike where the averages of 8 x 8 fields differ by less than `ALIKE` grey levels (root mean square over fields and colours).
Compression moves those averages by 5 at most, and the nearest other pictures among 50,000 of CIFAR-10 stand 8 away.
"""

import numpy as np

from crossdistill.core.errors import ImageError
from crossdistill.core.store import cache_folder, digest, write_atomically
from crossdistill.core.types import ImageSet
from crossdistill.images._cache import taken
from crossdistill.images._raw import ranges

FORMAT = 1  # of what counts as alike, and of the file that remembers it
FIELDS = 8  # in a row, and in a column
ALIKE = 6.0  # grey levels of 255


def without(images: ImageSet, others: ImageSet) -> ImageSet:
    """The images that are not alike any of the others. Raises ImageError for others of another size, and where none is left."""
    if images.size != others.size:
        raise ImageError(
            f"images of {images.size} pixels cannot be compared with images of {others.size} to be excluded: bring them to one size"
        )
    path = cache_folder() / "images" / f"alike-{digest([FORMAT, _name(images), _name(others)])}.npy"
    if not path.exists():
        write_atomically(path, lambda file: np.save(file, alike(images.images, others.images)))
    rest = np.flatnonzero(~np.load(path))
    if not len(rest):
        raise ImageError(f"all {len(images)} images of {images.provenance['split']} are among those to be excluded: give another source")
    return taken(images, rest)


def alike(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """bool [images]: which of them show the same picture as one of the others; both uint8 [., 3, height, width] of one size."""
    compared = _fields(others)
    norms = (compared**2).sum(1)
    limit = ALIKE**2 * compared.shape[1]
    found = [_nearest(_fields(images[rows]), compared, norms) < limit for rows in ranges(len(images))]
    return np.concatenate(found)


def _nearest(fields: np.ndarray, compared: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """The squared distance of each row to the nearest that it is compared with."""
    return (fields**2).sum(1) + (norms - 2 * fields @ compared.T).min(1)


def _fields(images: np.ndarray) -> np.ndarray:
    """float32 [images, 3 x 64]: averages of the fields, less 128, by which squares of float32 stay exact enough."""
    sums = images.astype(np.float32) - 128
    for axis in (2, 3):
        edges = np.linspace(0, images.shape[axis], FIELDS + 1).astype(int)
        counts = np.maximum(np.diff(edges), 1)
        shape = [1] * sums.ndim
        shape[axis] = FIELDS
        sums = np.add.reduceat(sums, edges[:-1], axis=axis) / counts.reshape(shape).astype(np.float32)
    return sums.reshape(len(images), -1)


def _name(images: ImageSet) -> list[object]:
    return [images.provenance["key"], images.provenance["split"], images.ids.tolist()]
