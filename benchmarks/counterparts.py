"""The losses of the public package torchdistill (https://github.com/yoshitomo-matsubara/torchdistill) that have the same name here.

Each takes the settings and weights of ours and the activations that ours read, so that only the loss differs. Their linear
embeddings and self-supervision heads are built as in torchdistill.models.wrapper. Importing this file needs the dependency
group `benchmarks`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchdistill.losses.mid_level import CRDLoss, DISTLoss, KDLoss, SSKDLoss
from torchdistill.models.wrapper import Normalizer4CRD

from crossdistill.core.types import Activations, Batch


@dataclass(frozen=True)
class Ours:
    """What theirs is to be equal to: our settings and weights, the pooled widths of student and teacher, the images' rows."""

    settings: Mapping[str, Any]
    weights: Mapping[str, float]
    widths: tuple[int, int]
    n_images: int
    index: Tensor


Loss = Callable[[Batch, Activations, Activations], Tensor]
Counterpart = tuple[Loss, list[nn.Parameter]]
"""The weighted loss of a batch, and the parameters that are trained beside the student's."""

LOGITS = ("logits", "output", "logits", "output")


def kd(ours: Ours) -> Counterpart:
    both = KDLoss(*LOGITS, temperature=ours.settings["temperature"], alpha=ours.weights["ce"], beta=ours.weights["kd"])
    return lambda batch, student, teacher: both(said(logits=student.logits), said(logits=teacher.logits), batch.labels), []


def dist(ours: Ours) -> Counterpart:
    weights = ours.weights
    relations = DISTLoss(*LOGITS, beta=weights["inter"], gamma=weights["intra"], tau=ours.settings["temperature"])

    def loss(batch: Batch, student: Activations, teacher: Activations) -> Tensor:
        own = F.cross_entropy(student.logits, batch.labels)
        return weights["ce"] * own + relations(said(logits=student.logits), said(logits=teacher.logits))

    return loss, []


def crd(ours: Ours) -> Counterpart:
    """With negatives handed over, since their own sampler reads an attribute that is not there; drawing them is not in their time."""
    dim, count, weights = ours.settings["dim"], ours.settings["n_negatives"], ours.weights
    memory = CRDLoss(
        "normalizer", "empty", "normalizer", input_size=dim, output_size=ours.n_images, num_negative_samples=count,
        num_samples=ours.n_images, temperature=ours.settings["temperature"], momentum=ours.settings["momentum"],
    )  # fmt: skip
    student_embed, teacher_embed = (Normalizer4CRD(nn.Linear(width, dim)) for width in ours.widths)
    negatives = torch.randint(ours.n_images, (len(ours.index), count))
    rows = {"pos_idx": ours.index, "contrast_idx": torch.cat([ours.index[:, None], negatives], dim=1)}

    def loss(batch: Batch, student: Activations, teacher: Activations) -> Tensor:
        own = F.cross_entropy(student.logits, batch.labels)
        learnt = {**said(normalizer=student_embed(student.pooled)), "empty": {"input": rows}}
        return weights["ce"] * own + weights["crd"] * memory(learnt, said(normalizer=teacher_embed(teacher.pooled))).sum()

    return loss, [*student_embed.parameters(), *teacher_embed.parameters()]


def sskd(ours: Ours) -> Counterpart:
    kd_temperature, tf_temperature, ss_temperature = ours.settings["temperatures"]
    keep_tf, keep_ss = ours.settings["keep"]
    terms = SSKDLoss(
        "logits", "logits", "head", "head", kl_temp=kd_temperature, ss_temp=ss_temperature, tf_temp=tf_temperature, ss_ratio=keep_ss,
        tf_ratio=keep_tf, loss_weights=[ours.weights[name] for name in ("ce", "kd", "ss", "tf")],
    )  # fmt: skip
    student_head, teacher_head = (
        nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, width)) for width in ours.widths
    )
    teacher_head.requires_grad_(False)

    def loss(batch: Batch, student: Activations, teacher: Activations) -> Tensor:
        learnt = said(logits=student.logits, head=student_head(student.pooled))
        return terms(learnt, said(logits=teacher.logits, head=teacher_head(teacher.pooled)), batch.labels)

    return loss, list(student_head.parameters())


def said(**outputs: Tensor | None) -> dict[str, Any]:
    """The outputs as torchdistill's hooks collect them: {path of the module: {"output": tensor}}."""
    return {path: {"output": output} for path, output in outputs.items()}


COUNTERPARTS: dict[str, Callable[[Ours], Counterpart]] = {"kd": kd, "dist": dist, "crd": crd, "sskd": sskd}
