"""Stylising whole batches against one image at a time, as the seed project did it, with the same encoder, losses and steps.

    python benchmarks/stylize.py [--images 64] [--steps 20] [--pairs 8]

The counterpart is the usual loop: for each image alone the content's features and the style's Gram matrices, then in every step the
features, the losses, the whole backward pass and Adam, at the same size and on 2 threads. The encoder is an untrained one of those that
studies train for themselves: weights do not change the time. Target: at least 2 x faster per image on a CPU, a ratio of at most 0.5.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F

from crossdistill.core.types import ImageSet
from crossdistill.models._build import build_network
from crossdistill.probes._gatys import LEARNING_RATE, content_layer, resized, style_grams, stylised_pixels
from crossdistill.probes._styles import style_supply
from crossdistill.study.encoders import MODEL, SETTINGS, Encoder
from protocol import paired_ratio, save_result

SIDE, SCALE, STYLE_WEIGHT = 32, 2, 5.0
THREADS = 2
TARGET = 0.5


def one_at_a_time(images: np.ndarray, styles: np.ndarray, chosen: np.ndarray, encoder: Encoder, steps: int) -> list[torch.Tensor]:
    """Each image alone: enlarged, optimised, reduced."""
    made = []
    for image, style in zip(images, styles[chosen], strict=True):
        content, picture = (resized(torch.from_numpy(pixels[None]).float() / 255, (SCALE * SIDE,) * 2) for pixels in (image, style))
        with torch.no_grad():
            of_content, of_style = encoder(content), encoder(picture)
        layer = content_layer([tuple(values.shape[2:]) for values in of_content], (SCALE * SIDE,) * 2)
        wanted = style_grams(picture, of_style)
        pixels = content.clone().requires_grad_()
        optimizer = torch.optim.Adam([pixels], lr=LEARNING_RATE)
        for _ in range(steps):
            optimizer.zero_grad()
            maps = encoder(pixels)
            style_loss = sum(F.mse_loss(found, of) for found, of in zip(style_grams(pixels, maps), wanted, strict=True))
            loss = F.mse_loss(maps[layer], of_content[layer]) + STYLE_WEIGHT * style_loss
            loss.backward()
            optimizer.step()
        made.append(F.interpolate(pixels.detach().clamp(0, 1), (SIDE, SIDE), mode="area"))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="in a batch; fewer measure something else, and nothing is written")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (arguments.images, 3, SIDE, SIDE), dtype=np.uint8)
    labels = np.zeros(len(images), np.int64)
    styles = style_supply(None, ImageSet(images, labels, labels.astype(str), ("any",))).of(None)
    chosen = random.integers(0, len(styles), len(images))
    torch.manual_seed(0)
    encoder = Encoder(build_network(MODEL, 10, (SIDE, SIDE), settings=SETTINGS))
    ratio = paired_ratio(
        lambda: stylised_pixels(images, styles, chosen, encoder, alpha=1.0, style_weight=STYLE_WEIGHT, steps=arguments.steps, scale=SCALE),
        lambda: one_at_a_time(images, styles, chosen, encoder, arguments.steps),
        pairs=arguments.pairs,
        warm_ups=1,
        target=TARGET,
    )
    ratio["milliseconds_per_image_and_step"] = ratio["a_milliseconds"] / len(images) / arguments.steps
    figures = {"images": len(images), "steps": arguments.steps, "pixels": SCALE * SIDE, "batch_over_one_at_a_time": ratio}
    if len(images) >= 64:
        save_result("stylize", figures)
    else:
        print(figures)


if __name__ == "__main__":
    main()
