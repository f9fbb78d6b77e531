"""What methods that compare features share: the names of stages, and the pooled vectors of both networks."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from crossdistill.core.types import Activations, Needs
from crossdistill.ops.parallel import gathered

Stage = Literal["stage1", "stage2", "stage3", "stage4", "last"]
Stages = Annotated[tuple[Stage, ...], Field(min_length=1)]


def repeated_stages(stages: Sequence[Any]) -> str | None:
    """The sentence that refuses a setting `stages` with a stage named twice, which would count double or not at all; None where it is fine.

    >>> repeated_stages(("stage3", "stage4", "stage3"))
    '`stages` names each stage once, got stage3, stage4, stage3.'
    """
    return f"`stages` names each stage once, got {', '.join(map(str, stages))}." if len(set(stages)) < len(stages) else None


def pooled_needs(settings: Mapping[str, Any], student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Needs:
    """The needs of a method that reads the pooled vectors of both networks, and nothing else."""
    return Needs(("pooled",), ("pooled",))


def pooled_of_all(student: Activations, teacher: Activations) -> tuple[Tensor, Tensor]:
    """As `pooled_vectors`, of the whole batch where several processes share it: for terms that compare images."""
    student_vectors, teacher_vectors = pooled_vectors(student, teacher)
    return gathered(student_vectors), gathered(teacher_vectors)


def pooled_vectors(student: Activations, teacher: Activations) -> tuple[Tensor, Tensor]:
    """Student's and teacher's pooled vectors [batch, channels], which `pooled_needs` asked for."""
    assert student.pooled is not None
    assert teacher.pooled is not None
    return student.pooled, teacher.pooled
