"""Where a vision transformer's answer comes from: attention multiplied through all blocks (Abnar & Zuidema, ACL 2020, arXiv 2005.00928)."""

from functools import reduce

import numpy as np
import torch
from torch import Tensor

from crossdistill.core.registry import instrument
from crossdistill.instruments._blocks import attending_grid, of_each_block
from crossdistill.instruments._passes import has_class_token, pictures
from crossdistill.ops.hook_reader import HookReader
from crossdistill.ops.network import Network


def rolled_out(blocks: list[Tensor]) -> Tensor:
    """The product of 0.5 A + 0.5 I over blocks, last block leftmost, [images, tokens, tokens]; A is the mean over heads.

    Rows are what a token of the last block holds of each token of the first; they add up to 1.
    """
    identity = torch.eye(blocks[0].shape[-1]).to(blocks[0])
    return reduce(lambda before, attention: (attention + identity) / 2 @ before, blocks, identity.expand_as(blocks[0]))


def reads_class_token(network: Network) -> bool:
    """Whether the answer is read from the class token, rather than from a mean over the patches."""
    if isinstance(network.reader, HookReader):
        return network.reader.pooling == "first token"
    return has_class_token(network) and getattr(network.model, "global_pool", "token") == "token"


@instrument(source="Abnar & Zuidema, ACL 2020", unit="share of the largest")
def attention_rollout(network: Network, images: Tensor) -> np.ndarray:
    """[images, height, width] of the images' size, 0 to 1: what the token that is read holds of each patch, over the image's largest.

    The token that is read is the class token, or where patches are averaged their mean. The same for all classes.
    """
    rows, columns = attending_grid(network)
    blocks = of_each_block(network, images, (rows, columns), lambda scores: scores.softmax(dim=-1).mean(dim=1))
    of_patches = rolled_out(blocks)[:, :, -rows * columns :]
    read = of_patches[:, 0] if reads_class_token(network) else of_patches[:, -rows * columns :].mean(dim=1)
    return pictures(read.unflatten(-1, (rows, columns)), (images.shape[-2], images.shape[-1]))
