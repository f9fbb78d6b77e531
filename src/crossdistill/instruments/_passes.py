"""What instruments share: a network left as it was found, and pictures from maps."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crossdistill.ops.modes import evaluating
from crossdistill.ops.network import Network

CLASS_TOKENS = ("cls_token", "class_token")
"""What timm, transformers and torchvision call the parameter that becomes the first token."""


@contextlib.contextmanager
def undisturbed(network: Network, images: Tensor) -> Iterator[None]:
    """Eval mode for the block; modes and torch's random generators are then as they were. Raises ValueError without images."""
    if not len(images):
        raise ValueError(f"an instrument needs at least one image, got shape {tuple(images.shape)}")
    devices = [images.device] if images.is_cuda else []
    with evaluating(network), torch.random.fork_rng(devices=devices):
        yield


def pixels_of(images: Tensor) -> Tensor:
    """The images as [0, 1] floats that ask for a gradient: nothing else then needs to, not even a frozen network's weights."""
    floats = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    return floats.detach().requires_grad_()


def has_class_token(network: Network) -> bool:
    """Whether the first prefix token is a class token, rather than a register."""
    return any(name.rpartition(".")[2] in CLASS_TOKENS for name, _ in network.model.named_parameters()) and network.n_prefix > 0


def pictures(maps: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Maps [images, h, w] of values from 0 up as float32 pictures [images, *size], each divided by its largest value: 0 to 1.

    A map that is zero everywhere stays so.
    """
    largest = maps.amax(dim=(1, 2), keepdim=True)
    scaled = torch.where(largest > 0, maps / largest.clamp_min(torch.finfo(maps.dtype).tiny), torch.zeros_like(maps))
    enlarged = F.interpolate(scaled[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    return as_rows(enlarged.clamp(0, 1))


def as_rows(values: Tensor) -> np.ndarray:
    """float32 numpy, on the CPU."""
    return values.detach().float().cpu().numpy()
