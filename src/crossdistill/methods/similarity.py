"""Similarity-preserving distillation: which images of a batch are alike (Tung & Mori, ICCV 2019, https://arxiv.org/abs/1907.09682)."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch, Needs
from crossdistill.ops.checks import refuse_unpaired
from crossdistill.ops.losses import cross_entropy, widened, without_autocast
from crossdistill.ops.parallel import gathered


@without_autocast
def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the batch's similarity matrices [batch, batch] (eqs. 1-3).

    Features of any shapes [batch, ...]: maps, tokens or vectors. A similarity is the inner product of two images' flattened
    features; each image's row of similarities is scaled to unit length. Depends on the whole batch; zero for one image. Raises
    ValueError unless both are features of one batch.

    >>> import torch
    >>> loss = similarity_loss(torch.eye(2), torch.ones(2, 1))  # rows (1, 0) and (0, 1) against (r, r) twice, r = 1 / sqrt(2)
    >>> round(loss.item(), 4)  # 1 - r
    0.2929
    """
    refuse_unpaired(student, teacher, "batch, ...")
    return (_similarities(student) - _similarities(teacher)).square().mean()


def _similarities(features: Tensor) -> Tensor:
    flat = widened(features).flatten(1)
    return F.normalize(flat @ flat.T, dim=1)


@method(
    paper="Tung & Mori 2019",
    weights={"ce": 1.0, "similarity": 3000.0},
    needs=lambda settings, student, teacher: Needs(("last",), ("last",)),
)
def similarity(student: Any, teacher: Any, images: Any, rng: Any) -> Callable[..., dict[str, Tensor]]:
    """Cross-entropy with the labels, and the squared difference of the image-by-image similarity matrices of the last maps.

    Weights 1 and 3000 and the last map before pooling as in the authors' code and RepDistiller. A matrix of batch x batch has no
    channels and no positions, so that any two networks compare: a CNN by its last map, a ViT by its patch tokens after the final
    norm (prefix tokens do not take part; before the norm a few channels of large norm would make up the inner products). Nothing
    is trained beside the student. The loss compares the images of a micro-batch (the batch, unless gradients are accumulated): a
    small one says little, and one of a single image nothing, since its loss is exactly 0.
    """

    def objective(batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        return {
            "ce": cross_entropy(student.logits, batch.targets),
            "similarity": similarity_loss(gathered(student.stages["last"].grid), gathered(teacher.stages["last"].grid)),
        }

    return objective
