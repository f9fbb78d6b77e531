"""OFA-KD: one for all, distilling in the space of logits at every stage (Hao et al., NeurIPS 2023, https://arxiv.org/abs/2310.19444)."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch, Needs
from crossdistill.methods._features import repeated_stages
from crossdistill.methods._logits import softened
from crossdistill.methods._ofa_branches import has_class_token, make_branch
from crossdistill.ops.checks import refuse_labels
from crossdistill.ops.losses import cross_entropy


def ofa_loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, eps: float = 1.0, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of the student with the teacher's probabilities p, the label's enhanced: mean over the batch.

    The weight of class c is (p_c + m_c)^eps - m_c, m the one-hot label; eps = 1 is the plain soft cross-entropy. The official
    code, which is followed, raises the other classes' probabilities to eps too, and takes no factor T^2. Logits are [batch,
    classes], labels [batch]; where a label is -1 no class is enhanced. The teacher's side is a constant. Raises ValueError
    unless eps and temperature are positive and both logits have one shape, and for labels that do not fit them.

    >>> ofa_loss(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0]), eps=2.0).div(torch.tensor(2.0).log()).item()
    1.5
    """
    if not eps > 0:
        raise ValueError(f"eps must be positive, got {eps}")
    student, teacher = softened(student_logits, teacher_logits.detach(), temperature)
    refuse_labels(labels, *student.shape)
    p = teacher.softmax(dim=1)
    mask = (torch.arange(p.shape[1], device=p.device) == labels[:, None]).to(p.dtype)
    weights = (p + mask) ** eps - mask
    per_class = (weights * student.log_softmax(dim=1)).masked_fill(weights == 0, 0.0)  # 0 log 0 = 0: a class masked on both sides
    return -per_class.sum(dim=1).mean()


Stages = Annotated[tuple[Literal[1, 2, 3, 4], ...], Field(min_length=1)]
Eps = PositiveFloat | tuple[PositiveFloat, ...]


def _needs(settings: Mapping[str, Any], student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Needs:
    """The student's stages; a refusal where the stages repeat, or there is not one eps for each of them and the logits."""
    stages, eps = settings["stages"], settings["eps"]
    refusal = repeated_stages(stages)
    if refusal is None and not isinstance(eps, int | float) and len(eps) != len(stages) + 1:
        refusal = f"`eps` is one number, or one for each of the {len(stages)} stages and a last one for the logits, got {len(eps)}."
    return Needs(student_taps=tuple(f"stage{stage}" for stage in stages), refusal=refusal)


@method(
    paper="Hao et al. 2023",
    weights={"ce": 1.0, "kd": 1.0, "ofa": 1.0},
    direction="any; made for pairs of different architecture",
    needs=_needs,
)
def ofa(
    student: Any, teacher: Any, images: Any, rng: Any, *, stages: Stages = (1, 2, 3, 4), eps: Eps = 1.0, temperature: PositiveFloat = 1.0
) -> nn.Module:  # fmt: skip
    """Each stage of the student answers through a branch of its own, and every answer is matched to the teacher's logits.

    Features of different architectures live in different spaces, logits do not; so branches, trained along and thrown away
    after training, turn the student's stages into logits. The target class is enhanced by `eps`: one number, or one for each
    stage and a last one for the final logits. Weights 1 / 1 / 1, `eps` 1 and temperature 1 are those of the official CIFAR-100
    command (ImageNet: eps 1.5). Branches of a CNN student halve the grid by separable convolutions, as often as it allows; those
    of a token student merge tokens 2 x 2 to at most 7 x 7 (a grid that cannot be merged so far is averaged) and add 4 - stage
    transformer blocks, with 4 heads where the width divides, and answer from the class token where the student has one, else from
    the mean of the patch tokens. At 224 pixels both are the official ones; the official table of sizes is replaced by what the
    student's stages have. Only logits of the teacher are read. With mixup the class of the larger share is enhanced. The
    student's prediction is its plain class head.
    """
    shapes, teacher_shapes = student.shapes(), teacher.shapes()
    branches = {
        f"stage{stage}": make_branch(
            student.family, stage, shapes[f"stage{stage}"], student_width=shapes["pooled"][0], teacher_width=teacher_shapes["pooled"][0],
            n_classes=shapes["logits"][0], n_prefix=student.n_prefix, has_class_token=has_class_token(student.model),
        )
        for stage in stages
    }  # fmt: skip
    each = [float(eps)] * (len(stages) + 1) if isinstance(eps, int | float) else list(eps)
    return BranchedObjective(branches, each, temperature)


class BranchedObjective(nn.Module):
    """The objective: `kd` on the final logits, `ofa` summed over the branches, which it owns. The last of `eps` is the logits'."""

    def __init__(self, branches: Mapping[str, nn.Module], eps: Sequence[float], temperature: float) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.eps, self.temperature = eps, temperature

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        def matched(logits: Tensor, eps: float) -> Tensor:
            return ofa_loss(logits, teacher.logits, batch.labels, eps=eps, temperature=self.temperature)

        *stage_eps, last_eps = self.eps
        answers = [branch(student.stages[name]) for name, branch in self.branches.items()]
        return {
            "ce": cross_entropy(student.logits, batch.targets),
            "kd": matched(student.logits, last_eps),
            "ofa": torch.stack([matched(logits, eps) for logits, eps in zip(answers, stage_eps, strict=True)]).sum(),
        }
