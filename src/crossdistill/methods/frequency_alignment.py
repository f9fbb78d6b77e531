"""Low and high frequencies of feature maps, weighed apart (after LFCC, arXiv 2405.18524, and UHKD, arXiv 2510.24116)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from crossdistill.core.registry import method
from crossdistill.core.types import Activations, Batch, Needs
from crossdistill.ops.checks import refuse_unpaired
from crossdistill.ops.layouts import normalized_channels, to_common_grid
from crossdistill.ops.losses import cross_entropy, widened
from crossdistill.ops.projectors import projected

Stage = Literal["auto", "stage1", "stage2", "stage3", "stage4", "last"]
DEEPEST_FIRST = ("last", "stage4", "stage3", "stage2", "stage1")
ROUNDING = 1e-9  # a frequency that equals the cutoff belongs to the low band, also where 2 k / n has been rounded


def frequency_alignment_losses(student_map: Tensor, teacher_map: Tensor, *, cutoff: float = 0.5) -> dict[str, Tensor]:
    """{"low", "high"}: squared error of the maps' low-pass and high-pass parts, mean over all entries, 0 to 4 together.

    Maps [batch, channels, height, width] of equal channels. They are brought to the smaller grid (axis by axis), normalised over
    channels at each position, and split at `cutoff`, a radius in units of the Nyquist frequency; the mean is in the low band. By Parseval's
    identity low + high is the mean squared error of the normalised maps: 2 for unrelated maps, 4 for opposite ones. Raises
    ValueError for other channels or cutoffs, and unless both are grids of one batch.

    >>> checkerboard = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]) * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    >>> flat = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    >>> losses = frequency_alignment_losses(checkerboard, flat)  # they differ by -2 at half of the places
    >>> round(losses["low"].item(), 3), round(losses["high"].item(), 3)
    (1.0, 1.0)
    """
    refuse_unpaired(student_map, teacher_map, "batch, channels, height, width")
    if student_map.shape[1] != teacher_map.shape[1]:
        raise ValueError(f"the student's map has {student_map.shape[1]} channels, the teacher's {teacher_map.shape[1]}: project it first")
    if cutoff <= 0:
        raise ValueError(f"cutoff must be positive, a fraction of the Nyquist frequency, got {cutoff}")
    student_map, teacher_map = to_common_grid(widened(student_map), widened(teacher_map))
    return band_errors(normalized_channels(student_map) - normalized_channels(teacher_map), cutoff)


def band_errors(difference: Tensor, cutoff: float) -> dict[str, Tensor]:
    """{"low", "high"}: mean squares of the two bands of [batch, channels, height, width]; together its mean square (Parseval)."""
    height, width = difference.shape[2:]
    spectrum = torch.view_as_real(torch.fft.rfft2(difference, norm="ortho"))
    energy = spectrum.square().sum(dim=(0, 1, 4)) / difference.numel()  # height, width // 2 + 1
    # A real signal's other half mirrors this one: every column counts twice, but for the mean and, where there is one, Nyquist's.
    column = torch.arange(energy.shape[1], device=energy.device)
    energy = torch.where((column == 0) | (2 * column == width), energy, 2 * energy)
    low = radii((height, width), energy.device)[:, : energy.shape[1]] <= cutoff + ROUNDING
    return {"low": (energy * low).sum(), "high": (energy * ~low).sum()}


def radii(size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """Distance of each frequency of a grid from zero [height, width], in float64; 1 is an axis' Nyquist frequency.

    >>> radii((1, 4)).tolist()
    [[0.0, 0.5, 1.0, 0.5]]
    """
    down, across = (2 * torch.fft.fftfreq(n, dtype=torch.float64, device=device) for n in size)
    return torch.hypot(down[:, None], across)


def has_two_bands(size: tuple[int, int], cutoff: float) -> bool:
    """Whether on such a grid the low band holds more than the mean, and the high band anything.

    >>> [n for n in range(1, 9) if has_two_bands((n, n), 0.5)]
    [4, 5, 6, 7, 8]
    """
    distance = radii(size)
    low = distance <= cutoff + ROUNDING
    return bool((low & (distance > 0)).any() and (~low).any())


class FrequencyAlignment(nn.Module):
    """The objective: a trained 1x1 convolution of the student's map to the teacher's channels, and the errors of the two bands."""

    def __init__(self, student_width: int, teacher_width: int, *, stage: str, cutoff: float) -> None:
        super().__init__()
        self.projection = nn.Conv2d(student_width, teacher_width, 1)
        self.stage = stage
        self.cutoff = cutoff

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        maps = projected(self.projection, student.stages[self.stage].grid, teacher.stages[self.stage].grid)
        return {"ce": cross_entropy(student.logits, batch.targets), **frequency_alignment_losses(*maps, cutoff=self.cutoff)}


def _common_size(stage: str, student: Mapping[str, Any], teacher: Mapping[str, Any]) -> tuple[int, int] | None:
    """The grid on which a stage is compared, or None where one of the networks lacks it."""
    if stage not in student or stage not in teacher:
        return None
    (_, *student_size), (_, *teacher_size) = student[stage], teacher[stage]
    return min(student_size[0], teacher_size[0]), min(student_size[1], teacher_size[1])


def chosen_stage(stage: Stage, cutoff: float, student: Mapping[str, Any], teacher: Mapping[str, Any]) -> str | None:
    """The stage to compare: the one asked for, or with "auto" the deepest one whose common grid has two bands; None if there is none."""
    candidates = DEEPEST_FIRST if stage == "auto" else (stage,)
    sizes = {name: _common_size(name, student, teacher) for name in candidates}
    return next((name for name, size in sizes.items() if size and has_two_bands(size, cutoff)), None)


def _needs(settings: Mapping[str, Any], student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Needs:
    if settings["low_weight"] == settings["high_weight"] == 0:
        return Needs(refusal="`low_weight` and `high_weight` are both 0, so that nothing would be distilled.")
    stage = chosen_stage(settings["stage"], settings["cutoff"], student, teacher)
    if stage is not None:
        return Needs((stage,), (stage,))
    asked = settings["stage"]
    if asked != "auto" and _common_size(asked, student, teacher) is None:
        return Needs((asked,), (asked,))  # the engine says who lacks it
    which = "at no stage" if asked == "auto" else f"not at {asked}"
    return Needs(
        refusal=f"with cutoff {settings['cutoff']}, student and teacher share a grid with both a low and a high band {which}: "
        "use larger images, another `stage` or another `cutoff`."
    )


def _weights(settings: Mapping[str, Any]) -> Mapping[str, float]:
    return {"ce": 1.0, "low": settings["low_weight"], "high": settings["high_weight"]}


@method(paper="after LFCC 2024 (arXiv 2405.18524) and UHKD 2025 (arXiv 2510.24116)", weights=_weights, needs=_needs)
def frequency_alignment(
    student: Any, teacher: Any, images: Any, rng: Any, *, low_weight: NonNegativeFloat = 1.0, high_weight: NonNegativeFloat = 1.0,
    cutoff: Annotated[float, Field(gt=0, le=1)] = 0.5, stage: Stage = "auto",
) -> nn.Module:  # fmt: skip
    """Matches the low and the high spatial frequencies of one feature map, each with a weight of its own.

    The student's map goes through a trained 1x1 convolution to the teacher's width, both maps to the smaller of their grids, and
    both are normalised over channels without parameters, since the scales of a CNN's and a ViT's features cannot be compared. A
    Fourier transform then splits their squared error at `cutoff` (fraction of the grid's Nyquist frequency; the radius is counted, so
    that no direction is preferred). The low band says what is where over the whole image: layout, the arrangement of parts,
    shape. The high band says how neighbouring positions differ: local detail, texture. `high_weight: 0` hands over the one without
    the other, `low_weight: 0` the reverse; whether it did is measured by the shape, scramble and low-pass probes. With equal weights, the
    default, the sum is exactly the squared error of the normalised maps: the baseline against which an unequal choice is to be read.
    The two settings are the published weights of the terms `low` and `high`; a study's own `weights` replace them.

    This is our own definition: LFCC aligns low-pass components of heterogeneous networks by contrast, UHKD transforms features to
    the frequency domain before a squared error, and neither has public code or weighs two bands apart. The prediction is the plain head.
    `stage: auto` takes the deepest stage whose common grid still has two bands (4 x 4 or more at cutoff 0.5): deep, because there
    the families resemble one another most and every layer of the student is taught; but on such a grid one step spans many pixels, so
    for fine texture name an earlier stage. Pairs that share no such grid are refused.
    """
    student_shapes, teacher_shapes = student.shapes(), teacher.shapes()
    tap = chosen_stage(stage, cutoff, student_shapes, teacher_shapes)
    if tap is None:
        raise ValueError(f"student and teacher share no grid with two bands at stage {stage} and cutoff {cutoff}")
    return FrequencyAlignment(student_shapes[tap][0], teacher_shapes[tap][0], stage=tap, cutoff=cutoff)
