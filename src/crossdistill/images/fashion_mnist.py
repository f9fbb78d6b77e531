"""Fashion-MNIST: 70,000 grey pictures of clothes of 28 pixels in 10 classes (Xiao et al., 2017, https://arxiv.org/abs/1708.07747)."""

from pathlib import Path

from crossdistill.core.registry import image_source
from crossdistill.images._raw import RawImages
from crossdistill.images._torchvision import torchvision_images

FILES = [f"FashionMNIST/raw/{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


@image_source(example="fashion_mnist")
def fashion_mnist(*, path: Path | None = None) -> RawImages:
    """FashionMNIST as torchvision downloads it into `path` (default: the cache folder); its own test split is the test split."""
    return torchvision_images("FashionMNIST", path, FILES)
