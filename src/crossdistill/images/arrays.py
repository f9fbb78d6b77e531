"""Arrays and data sets handed over in Python, as `crossdistill.distill` takes them; what the cache holds is known by its content."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping

import numpy as np

from crossdistill.core.errors import ImageError
from crossdistill.core.registry import image_source
from crossdistill.core.types import ImageSet
from crossdistill.images._raw import RawContents, RawImages, RawSplit, ranges

_held: dict[str, RawContents] = {}


@image_source(example="arrays (in Python: images=(images, labels))")
def arrays(*, content: str = "") -> RawImages:
    """The images whose content has that name: those handed over at this moment, or those that were decoded into the cache before.

    Raises ImageError, when they are read, where they are neither.
    """

    def read() -> RawContents:
        if content not in _held:
            raise ImageError(
                f"these images (content {content!r}) were handed over in Python, and the cache does not hold them any more: call "
                "crossdistill.distill with them again. On a command line name files: folder:DIR or parquet:DIR."
            )
        return _held[content]

    return RawImages({"content": content}, read)


@contextlib.contextmanager
def held(parts: Mapping[str, ImageSet]) -> Iterator[str]:
    """In this block the source `arrays` gives these splits ("train", perhaps "validation" and "test", and extra sets) as `content`.

    What is put there is a hash of their pixels, labels, ids and class names.
    """
    content = _content(parts)
    _held[content] = RawContents(parts["train"].class_names, {name: _raw(images) for name, images in parts.items()})
    try:
        yield content
    finally:
        del _held[content]


def _raw(images: ImageSet) -> RawSplit:
    return RawSplit(images.labels, images.ids, lambda: ranges(len(images)), lambda rows: images.images[rows], images.factors)


def _content(parts: Mapping[str, ImageSet]) -> str:
    found = hashlib.sha256()
    for name, images in sorted(parts.items()):
        about = [name, images.class_names, images.images.shape, images.ids.tolist(), sorted(images.factors)]
        found.update(json.dumps(about).encode())
        for values in (images.labels, *(images.factors[factor] for factor in sorted(images.factors))):
            found.update(np.ascontiguousarray(values).data)
        for rows in ranges(len(images)):
            found.update(np.ascontiguousarray(images.images[rows]).data)
    return found.hexdigest()[:16]
