"""Contrastive representation distillation (Tian, Krishnan & Isola, ICLR 2020, https://arxiv.org/abs/1910.10699)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from crossdistill.core.errors import SettingError
from crossdistill.core.registry import method
from crossdistill.core.seeds import key
from crossdistill.core.types import UNLABELLED, Activations, Batch, ImageSet, Needs
from crossdistill.methods._crd_memory import CRDMemory
from crossdistill.methods._features import pooled_needs, pooled_vectors
from crossdistill.ops.checks import refuse_labels, refuse_unpaired
from crossdistill.ops.losses import cross_entropy, widened, without_autocast
from crossdistill.ops.parallel import gathered
from crossdistill.ops.random import image_keys, uniform_integers

BANK_ONLY = {"n_negatives": 16384, "momentum": 0.5, "z_momentum": None}
"""The settings that only `negatives: bank` has a use for, and their defaults."""


@without_autocast
def crd_batch_losses(
    student_embedding: Tensor, teacher_embedding: Tensor, labels: Tensor, *, temperature: float = 0.07
) -> dict[str, Tensor]:
    """CRD without a bank, {"student", "teacher", "total"}: the negatives are the batch's images of other classes.

    `student` is the mean over unit rows [batch, dim] of -log softmax(<student, teachers' rows> / temperature) at the image's own
    teacher row, among that and the teacher rows of other classes; `teacher` is the same with the sides exchanged, and `total`
    their sum. It is CRD's critic in the softmax form (van den Oord et al., 2018), which needs neither a bank nor its
    normalisers, with gradients to both sides. Unlabelled images (-1) are contrasted with all others. Zero for a batch without
    negatives. Raises ValueError unless the temperature is positive, and for shapes and labels that do not fit.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    refuse_unpaired(student_embedding, teacher_embedding, "batch, dim")
    refuse_labels(labels, len(student_embedding))
    scores = widened(student_embedding) @ widened(teacher_embedding).T / temperature  # students teachers
    same_class = (labels[:, None] == labels) & (labels != UNLABELLED)
    scores = scores.masked_fill(same_class.fill_diagonal_(False), -torch.inf)
    own = torch.arange(len(labels), device=labels.device)
    student, teacher = F.cross_entropy(scores, own), F.cross_entropy(scores.T, own)
    return {"student": student, "teacher": teacher, "total": student + teacher}


def contrasted_classes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class of each image, counted from 0, and the number of images of each class; an unlabelled image is a class of its own.

    Raises SettingError where all images are of one class: there is nothing to contrast.
    """
    classes = np.where(labels == UNLABELLED, np.arange(len(labels)) + labels.max() + 1, labels)
    _, block, size = np.unique(classes, return_inverse=True, return_counts=True)
    if len(size) < 2:
        raise SettingError(f"crd contrasts images of different classes, and all {len(labels)} training images are of one: add another")
    return block, size


class OtherClasses(nn.Module):
    """Draws rows of other classes, uniformly and with replacement; a draw depends on (base key, epoch, image) alone.

    Raises SettingError where all images are of one class.
    """

    by_class: Tensor
    block_start: Tensor
    block_size: Tensor

    def __init__(self, labels: np.ndarray, base_key: int) -> None:
        super().__init__()
        block, size = contrasted_classes(labels)
        start = size.cumsum() - size
        self.base_key = base_key
        self.fewest = int(len(labels) - size.max())  # images of other classes, for the largest class
        # Derived from the training images: not part of the state.
        self.register_buffer("by_class", torch.from_numpy(np.argsort(block, kind="stable")), persistent=False)
        self.register_buffer("block_start", torch.from_numpy(start[block]), persistent=False)
        self.register_buffer("block_size", torch.from_numpy(size[block]), persistent=False)

    def forward(self, index: Tensor, count: int, epoch: int) -> Tensor:
        """int64 [batch, count]: rows of other classes than those of the rows `index`."""
        start, size = self.block_start[index], self.block_size[index]
        keys = image_keys(key(self.base_key, epoch), index)
        # Classes are blocks of `by_class`: a draw over all other positions steps over the image's own block.
        draw = uniform_integers(keys, count, 1 << 31)
        place = draw.mul_((len(self.by_class) - size)[:, None]).bitwise_right_shift_(31)
        place += (place >= start[:, None]) * size[:, None]
        return self.by_class.take(place)  # half the time of an index


class BankContrast(nn.Module):
    """CRD's loss of a batch against the memory, whose banks move once for each optimiser step."""

    def __init__(self, others: OtherClasses, memory: CRDMemory) -> None:
        super().__init__()
        self.others, self.memory = others, memory

    def forward(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        negatives = self.others(batch.index, self.memory.n_negatives, batch.clock.epoch)
        candidates = torch.cat([batch.index[:, None], negatives], dim=1)
        return self.memory(student, teacher, batch.index, candidates, update=False)["total"]


class BatchContrast(nn.Module):
    """CRD's loss within a batch."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        everything = (gathered(rows) for rows in (student, teacher, batch.labels))
        return crd_batch_losses(*everything, temperature=self.temperature)["total"]


class ContrastiveObjective(nn.Module):
    """Both pooled vectors, embedded by trained linear layers and scaled to length 1, and their contrast."""

    def __init__(self, student_width: int, teacher_width: int, dim: int, contrast: BankContrast | BatchContrast) -> None:
        super().__init__()
        self.student_embed = nn.Linear(student_width, dim)
        self.teacher_embed = nn.Linear(teacher_width, dim)
        self.contrast = contrast

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        # `normalize` bounds the length from below by 1e-12: only an embedding of exactly zero feels it, and gives no NaN.
        student_vector, teacher_vector = pooled_vectors(student, teacher)
        student_embedding = F.normalize(self.student_embed(student_vector))
        teacher_embedding = F.normalize(self.teacher_embed(teacher_vector))
        return {
            "ce": cross_entropy(student.logits, batch.targets),
            "crd": self.contrast(student_embedding, teacher_embedding, batch),
        }

    def after_step(self) -> None:
        if isinstance(self.contrast, BankContrast):
            self.contrast.memory.update()


def _needs(settings: Mapping[str, Any], student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Needs:
    idle = [name for name, default in BANK_ONLY.items() if settings["negatives"] == "batch" and settings[name] != default]
    refusal = f"`{idle[0]}` belongs to `negatives: bank`: within a batch there is no use for it." if idle else None
    return replace(pooled_needs(settings, student, teacher), refusal=refusal)


@method(paper="Tian et al. 2020", weights={"ce": 1.0, "crd": 0.8}, needs=_needs)
def crd(
    student: Any,
    teacher: Any,
    images: ImageSet,
    rng: torch.Generator,
    *,
    negatives: Literal["bank", "batch"] = "bank",
    n_negatives: PositiveInt = 16384,
    temperature: PositiveFloat = 0.07,
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.5,
    dim: PositiveInt = 128,
    z_momentum: Annotated[float | None, Field(ge=0, le=1)] = None,
) -> ContrastiveObjective:
    """Contrastive matching of the pooled vectors: the student's embedding of an image is to be told from other images' by the
    teacher's embedding of it, and the other way round. Two linear embeddings, one of them on the frozen teacher's vector, are
    trained along and dropped afterwards. Defaults and weights (cross-entropy 1, crd 0.8) are RepDistiller's.

    `negatives: bank` is the published form: two banks of n_images x dim float32 (2 x 26 MB for 50,000 images at 128) hold each
    image's embeddings. The negatives of an image are drawn with replacement from the images of other classes, keyed by image
    and epoch (an unlabelled image has all others as negatives); there are at most as many as the largest class has images of
    other classes. `negatives: batch` needs no bank: an image is told from the batch's images of other classes by a softmax, with
    gradients to both sides; use it for data sets that no bank fits, with large micro-batches, whose images alone it compares
    (a single image costs exactly 0). `n_negatives`, `momentum` and `z_momentum` are the bank's: `z_momentum: 0.99` lets the
    normalisers, published as frozen after the first batch (under accumulation: its first part), follow the training. It reads
    vectors only, so any pair of architectures will do: for a CNN the global average, for a token network what enters its head.
    At the start the bank's loss is near 2 (ln n_negatives + 1 + 1 / (2 dim temperature^2)); if it stays there, nothing is learnt.
    """
    if negatives == "batch":
        contrasted_classes(images.labels)  # refuses images of one class
        contrast = BatchContrast(temperature)
    else:
        others = OtherClasses(images.labels, int(torch.randint(1 << 62, (), generator=rng)))
        memory = CRDMemory(
            len(images), dim, n_negatives=min(n_negatives, others.fewest), temperature=temperature, momentum=momentum, z_momentum=z_momentum
        )
        contrast = BankContrast(others, memory)
    return ContrastiveObjective(student.shapes()["pooled"][0], teacher.shapes()["pooled"][0], dim, contrast)
