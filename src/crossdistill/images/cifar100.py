"""CIFAR-100: 60,000 colour photographs of 32 pixels in 100 classes (Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html)."""

from pathlib import Path

from crossdistill.core.registry import image_source
from crossdistill.images._raw import RawImages
from crossdistill.images._torchvision import torchvision_images

FILES = [f"cifar-100-python/{name}" for name in ("meta", "train", "test")]


@image_source(example="cifar100")
def cifar100(*, path: Path | None = None) -> RawImages:
    """CIFAR100 as torchvision downloads it into `path` (default: the cache folder); its own test split is the test split."""
    return torchvision_images("CIFAR100", path, FILES)
