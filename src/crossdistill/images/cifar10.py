"""CIFAR-10: 60,000 colour photographs of 32 pixels in 10 classes (Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html)."""

from pathlib import Path

from crossdistill.core.registry import image_source
from crossdistill.images._raw import RawImages
from crossdistill.images._torchvision import torchvision_images

FILES = [f"cifar-10-batches-py/{name}" for name in ("batches.meta", "test_batch", *(f"data_batch_{part}" for part in range(1, 6)))]


@image_source(example="cifar10")
def cifar10(*, path: Path | None = None) -> RawImages:
    """CIFAR10 as torchvision downloads it into `path` (default: the cache folder); its own test split is the test split."""
    return torchvision_images("CIFAR10", path, FILES)
