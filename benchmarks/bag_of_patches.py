"""A bag of patches: each is classified alone, the logits are averaged (after BagNet, Brendel & Bethge, ICLR 2019, arXiv 1904.00760)."""

from torch import Tensor, nn

from crossdistill.ops.network import Network

PATCH = 8  # pixels of a patch's side


class BagOfPatches(nn.Module):
    """Blind to where its patches stand: tiles that hold whole patches can change places, and its answer stays to rounding.

    Its convolutions move by as much as they are wide, so that unlike BagNet's the patches do not overlap and no seam between tiles shows.
    """

    def __init__(self, n_classes: int, *, width: int = 64) -> None:
        super().__init__()
        self.of_patches = nn.Sequential(
            *_layer(3, width, 2), *_layer(width, 2 * width, 2), *_layer(2 * width, 4 * width, 2), *_layer(4 * width, 4 * width, 1)
        )
        self.classifier = nn.Linear(4 * width, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.of_patches(images)  # batch channels rows columns, one column vector a patch
        # The mean of the patches' logits is the logits of their mean features: the classifier is linear.
        return self.classifier(features.mean(dim=(2, 3)))


def bag_of_patches(n_classes: int, size: tuple[int, int]) -> Network:
    """An untrained bag of patches for images of `size` (height, width), both multiples of `PATCH`."""
    return Network(BagOfPatches(n_classes), n_classes, size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), model_name="bag of patches")


def _layer(channels_in: int, channels_out: int, side: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(channels_in, channels_out, side, stride=side, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
