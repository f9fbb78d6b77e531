"""Optimising the pixels of many images at once, so that their features hold content and Gram matrices styles (Gatys et al., CVPR 2016).

Every term belongs to one image and Adam works on each pixel alone, so what an image becomes does not depend on its company, but for
the last bits of the arithmetic.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crossdistill.ops.memory import keep_freed_memory

Encoder = Callable[[Tensor], Sequence[Tensor]]
"""Images float32 [n, 3, h, w] in [0, 1] -> maps [n, channels, h', w'], shallow to deep; it owns its normalisation."""

CONTENT_STRIDE = 8  # pixels a position: VGG-19's conv4, where the paper reads the content
LEARNING_RATE = 0.05  # of Adam, on pixels in [0, 1]
PIXELS_AT_ONCE = {"cpu": 2**16, "cuda": 2**22}  # of images optimised together: their maps and gradients are held in memory


def stylised_pixels(
    images: np.ndarray,
    styles: np.ndarray,
    chosen: np.ndarray,
    encoder: Encoder,
    *,
    alpha: float,
    style_weight: float,
    steps: int,
    scale: int,
) -> np.ndarray:
    """Images uint8 [n, 3, h, w] with the style `styles[chosen[i]]` each, optimised at `scale` times their size, then reduced by averaging.

    Content is held at the map of about 8 pixels a position. The Gram matrices of colours and of all maps are drawn towards `alpha` times
    the style's plus 1 - alpha times the image's own, which at alpha = 0 is the image itself.
    """
    height, width = images.shape[2:]
    size = (scale * height, scale * width)
    device = _device_of(encoder, size)
    keep_freed_memory()
    at_once = max(1, PIXELS_AT_ONCE.get(device.type, PIXELS_AT_ONCE["cpu"]) // (size[0] * size[1]))
    made = np.empty(images.shape, np.uint8)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        for start in range(0, len(images), at_once):
            rows = slice(start, start + at_once)
            content = resized(_unit(images[rows], device), size)
            own, of_image = np.unique(chosen[rows], return_inverse=True)
            pictures = style_sized(_unit(styles[own], device), size)
            wanted = _Wanted(encoder, content, pictures, torch.from_numpy(of_image).to(device), alpha, style_weight)
            optimised = _optimised(content, wanted, steps)
            reduced = F.interpolate(optimised, (height, width), mode="area") if scale > 1 else optimised
            made[rows] = (reduced * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return made


class _Wanted:
    """The loss of each image: how far its content is from its own, and its Gram matrices from what was asked."""

    def __init__(self, encoder: Encoder, content: Tensor, pictures: Tensor, of_image: Tensor, alpha: float, style_weight: float) -> None:
        self.encoder, self.style_weight = encoder, style_weight
        with torch.no_grad():
            maps = encoder(content)
            self.layer = content_layer([(values.shape[2], values.shape[3]) for values in maps], (content.shape[2], content.shape[3]))
            self.content = maps[self.layer].clone()
            own = style_grams(content, maps)
            styles = [values[of_image] for values in style_grams(pictures, encoder(pictures))]
            self.grams = [torch.lerp(before, after, alpha) for before, after in zip(own, styles, strict=True)]
            # Each layer is measured against its own size, so that weights mean the same for every encoder.
            self.energies = [_squares(before) + _squares(after) + 1e-12 for before, after in zip(own, styles, strict=True)]
            self.content_energy = _squares(self.content) + 1e-12

    def losses(self, pixels: Tensor) -> Tensor:
        """float32 [images]."""
        maps = self.encoder(pixels)
        content = _squares(maps[self.layer] - self.content) / self.content_energy
        layers = zip(style_grams(pixels, maps), self.grams, self.energies, strict=True)
        style = torch.stack([_squares(found - wanted) / energy for found, wanted, energy in layers])
        return content + self.style_weight * style.mean(dim=0)


def _optimised(content: Tensor, wanted: _Wanted, steps: int) -> Tensor:
    pixels = content.clone().requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=LEARNING_RATE)
    for step in range(steps):
        # Steps that end small leave no grain behind.
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        with torch.enable_grad():
            # The pixels' gradient alone: an encoder whose weights are not frozen keeps none.
            (pixels.grad,) = torch.autograd.grad(wanted.losses(pixels).sum(), [pixels])
        optimizer.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)  # the encoder knows images only
    return pixels.detach()


def gram(values: Tensor) -> Tensor:
    """Gram matrices of maps [n, channels, h, w], divided by positions and channels: [n, channels, channels].

    >>> gram(torch.tensor([[[[1.0, 1.0]], [[0.0, 2.0]]]])).tolist()
    [[[0.5, 0.5], [0.5, 1.0]]]
    """
    flat = values.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def style_grams(images: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
    """The Gram matrices of an encoder's maps, and before them that of the colours, from -1 to 1.

    The paper has none of the colours: VGG-19's first layers hold them, those of a small encoder do not.
    """
    return [gram(values) for values in (2 * images - 1, *maps)]


def content_layer(maps: Sequence[tuple[int, int]], size: tuple[int, int]) -> int:
    """Which of maps of these sizes has about 8 pixels a position for images of `size`; the deepest of equally good ones.

    >>> content_layer([(224, 224), (112, 112), (56, 56), (28, 28), (14, 14)], (224, 224)), content_layer([(14, 14)] * 4, (224, 224))
    (3, 3)
    """
    strides = [math.sqrt(size[0] * size[1] / (height * width)) for height, width in maps]
    distances = [round(abs(math.log2(stride / CONTENT_STRIDE)), 6) for stride in strides]
    return max(layer for layer, distance in enumerate(distances) if distance == min(distances))


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The images at another size, bicubic, in [0, 1]; a reduction averages."""
    if tuple(images.shape[2:]) == size:
        return images
    return F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def style_sized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Style pictures scaled so that they just fill `size`, proportions kept: textures are as large against the object as pictured."""
    height, width = pictures.shape[2:]
    factor = max(size[0] / height, size[1] / width)
    return resized(pictures, (round(height * factor), round(width * factor)))


def _squares(values: Tensor) -> Tensor:
    return values.square().flatten(1).sum(dim=1)


def _unit(images: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).float() / 255


def _device_of(encoder: Encoder, size: tuple[int, int]) -> torch.device:
    """Where the encoder computes: it takes images from anywhere."""
    with torch.no_grad():
        return encoder(torch.zeros(1, 3, *size))[0].device
