"""What teaches at a step: the teacher's answers to a batch, from the network itself."""

import torch

from crossdistill.core.types import Activations, Batch
from crossdistill.ops.network import Network


class LiveTeacher:
    """The teacher as it answers each batch afresh: in eval mode, without gradients, rounded to the recipe's `cache_dtype`.

    To be called where the recipe's autocast is on. An answer is a function of the image alone, so that one that was stored earlier
    may stand in for it (see `cache`).
    """

    def __init__(self, network: Network, taps: tuple[str, ...], dtype: str = "float32") -> None:
        self.network, self.taps, self.dtype = network, taps, dtype

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Activations:
        self.network.eval()
        return self.network(batch.teacher_images, taps=self.taps)
