"""SSKD: what a teacher says about rotated images, and which image it takes them for (Xu et al., ECCV 2020, https://arxiv.org/abs/2006.07114)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch, Needs, WarmUp
from crossdistill.methods._logits import tempered_kl
from crossdistill.ops.losses import cross_entropy, label_cross_entropy, widened, without_autocast
from crossdistill.ops.parallel import gathered

VIEWS = 4  # clean, and rotated by 90, 180 and 270 degrees


@without_autocast
def sskd_losses(
    student_logits: Tensor, teacher_logits: Tensor, student_embedding: Tensor, teacher_embedding: Tensor, labels: Tensor, *,
    weights: Sequence[float] = (0.1, 0.9, 2.7, 10.0), temperatures: Sequence[float] = (4.0, 4.0, 0.5), keep: Sequence[float] = (1.0, 0.75),
) -> dict[str, Tensor]:  # fmt: skip
    """The four terms, unweighted and with their T^2, and their weighted sum: {"ce", "kd", "tf", "ss", "total"}.

    Logits [4 * batch, classes] and embeddings [4 * batch, dim] hold each image's clean row and its rotations by 90, 180 and 270
    degrees, one after the other; labels are [batch], -1 where there is none. `ce` (with the labels) and `kd` (KL to the teacher)
    read the clean rows, `tf` (KL) and `ss` (see `self_supervised_similarity`) the rotated rows that `kept_rows` keeps. `weights`
    are those of ce, kd, tf and ss, `temperatures` those of kd, tf and ss, `keep` the shares of wrong rows for tf and ss. Raises
    ValueError where rows, temperatures or shares are not as said.
    """
    terms = transfer_terms(
        student_logits, teacher_logits, student_embedding, teacher_embedding, labels, temperatures=temperatures, keep=keep
    )
    terms = {"ce": label_cross_entropy(student_logits[::VIEWS], labels), **terms}
    total = torch.stack([weight * term for weight, term in zip(weights, terms.values(), strict=True)]).sum()
    return {**terms, "total": total}


def transfer_terms(
    student_logits: Tensor, teacher_logits: Tensor, student_embedding: Tensor, teacher_embedding: Tensor, labels: Tensor, *,
    temperatures: Sequence[float], keep: Sequence[float],
) -> dict[str, Tensor]:  # fmt: skip
    """The terms "kd", "tf" and "ss" of `sskd_losses`, which see of the labels only how well the teacher ranks them."""
    _check(len(labels), (student_logits, teacher_logits, student_embedding, teacher_embedding), temperatures, keep)
    (kd_t, tf_t, ss_t), (keep_tf, keep_ss) = temperatures, keep
    student, teacher = widened(student_logits), widened(teacher_logits).detach()
    student_rotated, teacher_rotated = _rotated(student), _rotated(teacher)
    student_similarity = self_supervised_similarity(student_embedding)
    teacher_similarity = self_supervised_similarity(teacher_embedding.detach())
    kept_tf = kept_rows(teacher_rotated, labels.repeat_interleave(VIEWS - 1), keep_tf)
    kept_ss = kept_rows(teacher_similarity, _own_image(len(labels), labels.device), keep_ss)
    return {
        "kd": (kd_t**2 * tempered_kl(student[::VIEWS], teacher[::VIEWS], kd_t)).mean(),
        "tf": _mean_over(kept_tf, tf_t**2 * tempered_kl(student_rotated, teacher_rotated, tf_t)),
        "ss": _mean_over(kept_ss, ss_t**2 * tempered_kl(student_similarity, teacher_similarity, ss_t)),
    }


def self_supervised_similarity(embedding: Tensor) -> Tensor:
    """Cosine of every rotated row with every clean row, [3 * batch, batch], of embeddings [4 * batch, dim]; no temperature."""
    unit = F.normalize(widened(embedding), dim=1)
    return _rotated(unit) @ unit[::VIEWS].T


def self_supervised_loss(embedding: Tensor) -> Tensor:
    """Cross-entropy of each rotated row's similarities, as logits, with its own clean image: what trains the teacher's head."""
    similarity = self_supervised_similarity(embedding)
    return F.cross_entropy(similarity, _own_image(similarity.shape[1], similarity.device))


def kept_rows(scores: Tensor, answers: Tensor, share: float) -> Tensor:
    """Which rows of scores [rows, choices] teach, bool [rows]: those whose answer scores highest, and of the wrong ones a share.

    Of n wrong rows the floor(share * n) whose answer has the smallest rank are kept, the earlier row where ranks are equal; the
    rank is the number of choices that score higher. A row without an answer (-1) is wrong, and the first to be left out.

    >>> scores = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    >>> kept_rows(scores, torch.tensor([2, 0, 1]), 0.5).tolist()
    [False, True, True]
    """
    own = scores.gather(1, answers.clamp(min=0)[:, None])
    rank = torch.where(answers < 0, scores.shape[1], (scores > own).sum(dim=1))
    n_wrong = (rank > 0).sum()
    n_kept = len(rank) - n_wrong + (n_wrong.double() * share).floor().long()  # on the device, so that nothing waits for it
    position = torch.empty_like(rank)
    position[rank.argsort(stable=True)] = torch.arange(len(rank), device=rank.device)
    return position < n_kept


def rotations(images: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Every image clean and rotated by 90, 180 and 270 degrees, one after the other, for student and teacher alike."""
    rows = torch.stack([images.rot90(k, (-2, -1)) for k in range(VIEWS)], dim=1).flatten(0, 1)
    return rows, rows, torch.ones(len(rows), dtype=torch.bool, device=rows.device)


def _rotated(rows: Tensor) -> Tensor:
    return rows.unflatten(0, (-1, VIEWS))[:, 1:].flatten(0, 1)


def _own_image(batch: int, device: torch.device) -> Tensor:
    return torch.arange(batch, device=device).repeat_interleave(VIEWS - 1)


def _mean_over(kept: Tensor, rows: Tensor) -> Tensor:
    """Mean over the rows kept; zero, with a graph, where none is."""
    return (rows * kept).sum() / kept.sum().clamp(min=1)


def _check(batch: int, rows: Sequence[Tensor], temperatures: Sequence[float], keep: Sequence[float]) -> None:
    for values in rows:
        if len(values) != VIEWS * batch:
            raise ValueError(f"{batch} labels need {VIEWS * batch} rows (clean, 90, 180, 270 degrees of each image), got {len(values)}")
    if min(temperatures) <= 0:
        raise ValueError(f"temperatures must be positive, got {tuple(temperatures)}")
    if not all(0 <= share <= 1 for share in keep):
        raise ValueError(f"keep holds shares from 0 to 1, got {tuple(keep)}")


def ss_head(width: int) -> nn.Sequential:
    """The head that embeds pooled vectors [rows, width] for the self-supervised task, equally wide."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))


class TeacherHead(nn.Module):
    """The teacher's self-supervision head, with the loss that trains it while the teacher stays as it is."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = ss_head(width)

    def forward(self, batch: Batch, teacher: Activations, nobody: None) -> dict[str, Tensor]:
        return {"ss": self_supervised_loss(gathered(self.head(teacher.pooled)))}


def make_teacher_head(teacher: Any, settings: Mapping[str, Any]) -> TeacherHead:
    """The untrained head for this teacher."""
    return TeacherHead(teacher.shapes()["pooled"][0])


def warm_up_recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The published training of the teacher's head: SGD, 0.05, a tenth of it after 1/2 and 3/4, batches of 64, plain crops and flips."""
    return {
        "epochs": settings["warm_up_epochs"], "batch_size": 64, "accumulate": 1, "optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9,
        "weight_decay": 5e-4, "schedule": "step", "milestones": (0.5, 0.75), "warmup_epochs": 0.0, "clip_norm": None,
        "label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0, "color": "none", "random_erasing": 0.0,
    }  # fmt: skip


def _needs(settings: Mapping[str, Any], student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Needs:
    """Pooled vectors of both; images that are not square are refused."""
    height, width = student["images"][1:]
    refusal = None
    if height != width:
        refusal = f"it rotates images by 90 degrees, which must be square for it, and these are {height} x {width} pixels."
    return Needs(student_taps=("pooled",), teacher_taps=("pooled",), refusal=refusal)


Share = Annotated[float, Field(ge=0, le=1)]


@method(
    paper="Xu et al. 2020",
    weights={"ce": 0.1, "kd": 0.9, "tf": 2.7, "ss": 10.0},
    direction="any; square images",
    needs=_needs,
    views=lambda settings: rotations,
    warm_up=WarmUp(make_teacher_head, warm_up_recipe, settings=("warm_up_epochs",), taps=("pooled",), views=rotations),
)
def sskd(
    student: Any, teacher: Any, images: Any, rng: Any, warm: Any, *,
    temperatures: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (4.0, 4.0, 0.5), keep: tuple[Share, Share] = (1.0, 0.75),
    warm_up_epochs: PositiveInt = 60,
) -> nn.Module:  # fmt: skip
    """The teacher's answers to each image and its three rotations, and which clean image it thinks a rotated one shows.

    A head on the teacher's pooled vector learns first, with the teacher frozen, to find the image that a rotated one came from
    (`warm_up_epochs`, shared by all students of the teacher); the student and a head of its own then match the teacher's
    logits on clean (`kd`) and rotated rows (`tf`) and its similarities between rotated and clean images (`ss`). Rows on which the
    teacher is right all count, of the others the least wrong: all of them for tf, 0.75 for ss (`keep`). Weights 0.1 / 0.9 / 2.7 /
    10, temperatures 4, 4 and 0.5 (kd, tf, ss) and 60 epochs of SGD for the head are the official code's. Only pooled vectors and
    logits are read, so any pair will do. The four rows of an image share crop and flip, where the official code crops each
    on its own. Images without a label teach through
    all terms but ce. Both networks see four rows an image, so a step costs about four times that of kd, and three quarters of
    what the student's BatchNorm sees is rotated: compare with a student trained on labels under the same views. The student's
    prediction is its plain class head, on the image as it is.
    """
    return SelfSupervisedObjective(ss_head(student.shapes()["pooled"][0]), warm, temperatures, keep)


class SelfSupervisedObjective(nn.Module):
    """The objective: it owns the student's head, which is trained, and the teacher's, which is not."""

    def __init__(self, head: nn.Module, warm: TeacherHead, temperatures: Sequence[float], keep: Sequence[float]) -> None:
        super().__init__()
        self.head, self.warm = head, warm
        self.temperatures, self.keep = temperatures, keep

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        rows = student.logits, teacher.logits, self.head(student.pooled), self.warm.head(teacher.pooled), batch.labels
        # Similarities run over the whole batch, and so does the choice of the rows that teach.
        terms = transfer_terms(*(gathered(values) for values in rows), temperatures=self.temperatures, keep=self.keep)
        return {"ce": cross_entropy(student.logits[:: batch.views], batch.targets), **terms}
