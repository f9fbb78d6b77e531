"""The one place that runs a network for evaluation: images in, Observations out."""

from collections.abc import Callable

import numpy as np
import torch

from crossdistill.core.types import ImageSet, Observations
from crossdistill.ops.modes import evaluating
from crossdistill.ops.network import Network


@torch.no_grad()
def observe(
    network: Network, images: ImageSet, *, index: np.ndarray | None = None, batch_size: int = 256, device: torch.device | None = None,
    split: str = "test", advance: Callable[[int], None] | None = None,
) -> Observations:  # fmt: skip
    """What `network` answers on every image, in float32 and eval mode (its own mode is restored).

    `index` are the rows of the split that the images are (default: all of it, in order).
    """
    device = device or torch.device("cpu")
    logits = []
    with evaluating(network):
        for start in range(0, len(images), batch_size):
            block = torch.from_numpy(np.array(images.images[start : start + batch_size])).to(device)
            logits.append(network(block).logits.float().cpu())
            if advance:
                advance(len(block))
    rows = np.arange(len(images)) if index is None else np.asarray(index)
    return Observations(torch.cat(logits).numpy(), np.asarray(images.labels), rows, dict(images.factors), split)
