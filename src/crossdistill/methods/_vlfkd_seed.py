"""VLFKD as a notebook adapted it to classification, kept for the record: frozen random projections of the teacher's features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossdistill.core.types import Activations, Batch
from crossdistill.methods._logits import check_logits
from crossdistill.methods._vlfkd_terms import labelled_mean, on_grid, token_kl
from crossdistill.ops.checks import refuse_labels
from crossdistill.ops.layouts import tokens_from_grid
from crossdistill.ops.losses import cross_entropy, kl_divergence, widened, without_autocast

TOTAL_WEIGHTS = {"global": 0.5, "patch": 0.3, "linguistic": 0.2, "decoupled": 1.0}


@without_autocast
def vlfkd_seed_losses(
    student_map: Tensor,
    teacher_map: Tensor,
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    global_projection: Tensor,
    patch_projection: Tensor,
    teacher_align: tuple[Tensor, Tensor],
    student_align: tuple[Tensor, Tensor],
) -> dict[str, Tensor]:
    """The seed notebook's four terms, unweighted, and `total`, weighted 0.5 / 0.3 / 0.2 / 1.

    Maps are [batch, channels, height, width], each on its own grid; the projections [student channels, teacher channels] act on
    the TEACHER's features; the alignments are (weight [dim, channels], bias [dim]). `global`: KL of softmaxes over channels of
    the pooled maps; `patch`: mean squared error on the student's grid; `linguistic`: KL of softmaxes of aligned unit vectors;
    `decoupled`: squared errors of the target logit and of the sum of the others, mean over the labelled images.
    Raises ValueError where batches, classes or the projections' shapes do not fit one another.
    """
    _check(student_map, teacher_map, student_logits, (global_projection, patch_projection))
    terms = _seed_feature_terms(
        widened(student_map), widened(teacher_map), global_projection, patch_projection, teacher_align, student_align, temperature=1.0
    )
    terms["decoupled"] = _seed_decoupled(widened(student_logits), widened(teacher_logits), labels)
    return {**terms, "total": torch.stack([TOTAL_WEIGHTS[name] * value for name, value in terms.items()]).sum()}


def _check(student_map: Tensor, teacher_map: Tensor, student_logits: Tensor, projections: tuple[Tensor, Tensor]) -> None:
    if not len(student_map) == len(teacher_map) == len(student_logits):
        raise ValueError(
            f"maps and logits must be of the same images, got {len(student_map)}, {len(teacher_map)} maps and {len(student_logits)} rows"
        )
    expected = (student_map.shape[1], teacher_map.shape[1])
    for projection in projections:
        if projection.shape != expected:
            raise ValueError(f"a projection must be [student channels, teacher channels] {expected}, got {tuple(projection.shape)}")


def _seed_feature_terms(
    student_map: Tensor, teacher_map: Tensor, global_projection: Tensor, patch_projection: Tensor,
    teacher_align: tuple[Tensor, Tensor], student_align: tuple[Tensor, Tensor], *, temperature: float,
) -> dict[str, Tensor]:  # fmt: skip
    teacher_channels = F.linear(teacher_map.mean(dim=(2, 3)), widened(global_projection))
    student_channels = student_map.mean(dim=(2, 3))
    teacher_tokens = tokens_from_grid(on_grid(teacher_map, (student_map.shape[2], student_map.shape[3])))
    student_tokens = tokens_from_grid(student_map)
    aligned_teacher = F.linear(teacher_tokens, *(widened(part) for part in teacher_align))
    aligned_student = F.linear(student_tokens, *(widened(part) for part in student_align))
    return {
        "global": kl_divergence(teacher_channels.log_softmax(dim=1), student_channels.log_softmax(dim=1)),
        "patch": F.mse_loss(student_tokens, F.linear(teacher_tokens, widened(patch_projection))),
        "linguistic": token_kl(aligned_student, aligned_teacher, temperature=temperature),
    }


def _seed_decoupled(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    check_logits(student_logits, teacher_logits)
    refuse_labels(labels, *student_logits.shape)
    difference = student_logits - teacher_logits
    target = difference.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    rest = difference.sum(dim=1) - target
    return labelled_mean(target.square() + rest.square(), labels)


class Seed(nn.Module):
    """The seed notebook's terms. Nothing in it is trained, and the patch projection is drawn anew after each optimiser step."""

    patch_projection: Tensor

    def __init__(self, student_width: int, teacher_width: int, *, dim: int, temperature: float) -> None:
        super().__init__()
        self.global_projection = nn.Linear(teacher_width, student_width, bias=False).requires_grad_(False)
        self.teacher_align = nn.Linear(teacher_width, dim).requires_grad_(False)
        self.student_align = nn.Linear(student_width, dim).requires_grad_(False)
        self.temperature = temperature
        self.register_buffer("patch_projection", torch.empty(student_width, teacher_width))
        self.after_step()

    def after_step(self) -> None:
        """Draw the patch projection anew, as a new nn.Linear would be: uniform within 1 / sqrt(teacher channels)."""
        bound = self.patch_projection.shape[1] ** -0.5
        self.patch_projection.uniform_(-bound, bound)

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        aligns = ((align.weight, align.bias) for align in (self.teacher_align, self.student_align))
        return {
            "ce": cross_entropy(student.logits, batch.targets),
            "decoupled": _seed_decoupled(student.logits, teacher.logits, batch.labels),
            **_seed_feature_terms(
                student.stages["last"].grid, teacher.stages["last"].grid, self.global_projection.weight,
                # A copy: the buffer is redrawn in place, and a graph that is still alive must not notice.
                self.patch_projection.clone(), *aligns, temperature=self.temperature,
            ),
        }  # fmt: skip
