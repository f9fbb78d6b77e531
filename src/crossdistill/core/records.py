"""What a study leaves on disk: the record of each finished task, and the rows of its tables.

The report reads these files and nothing else. `FORMAT` guards them: a reader refuses a record of another format.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crossdistill.core.errors import RunError
from crossdistill.core.store import read_json, write_json
from crossdistill.core.types import Estimate

FORMAT = 1

TIMING = frozenset({"seconds", "images_per_second", "timing"})
"""The fields of records and logs, at any depth, in which two equal trainings may differ."""

Verdict = Literal["inherited", "moved_away", "equivalent", "unresolved", "nothing_to_inherit", "method_did_not_act", "not_measurable"]

GateStatus = Literal["", "passed", "failed", "not run"]
"""What became of the signal gate of a probe at one level; "" for images that are no probe."""

Against = Literal[
    "independent", "accuracy_matched", "twin", "shuffled_teacher", "control_teacher", "control_teacher_adjusted", "second_independent"
]
"""What the students of a method are compared with; `docs/measuring.md` says how, contrast by contrast."""


def subject(arm: str, teacher: str, student: str) -> str:
    """What the runs of a taught arm have in common, for people; plan.json says under this name what was left out, and why."""
    return f"{arm}: {teacher} -> {student}"


EARLIER_TEACHER = "earlier_teacher"
"""The arm of a teacher's weights after an epoch, which teach where they match another teacher's in accuracy."""

CEILING = "ceiling"
"""The arm of a network that is trained on a probe's own images, to learn how much signal they carry."""

CLEAN_ACCURACY = "clean_accuracy"
"""The figure of a probe that drops images: a network's accuracy on the clean versions of those that it kept."""


class Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ResultRow(Row):
    """One row of `results.parquet`: one figure of one network. Shares are 0 to 1 (`unit` says what the figure is)."""

    run: str  # folder name under runs/
    arm: str  # "teacher", "independent", "second_independent", a method's label ("kd"), a control of it ("kd+twin"), or "ceiling"
    method: str | None  # the method's name; None for teachers and independents
    teacher: str | None  # network name in the study file; None for teachers and independents
    student: str  # network name in the study file of the network that was observed (a teacher's own name for teachers)
    seed: int
    probe: str  # "clean", a probe's name, or the name of an extra set such as "conflict"
    level: str  # "" for clean, "grid=4" for a level, "auc" for the mean over the levels
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    unit: str
    status: Literal["ok", "not_measurable"]
    reason: str | None
    split: str = "test"
    draw: str = "mean"  # "mean": averaged over the draws inside an image, then over images
    n_rejected: int = 0
    teacher_run: str | None = None  # folder name of the teacher run that taught it
    signal_gate: GateStatus = ""
    chance: float | None = None  # what the best constant answer scores on these very images; None without labels


class InheritanceRow(Row):
    """One row of `inheritance.parquet`: one contrast of a student arm with a control. Differences are shares (0.01 = 1 point)."""

    pair: int
    teacher: str
    student: str
    method: str  # the arm's label
    contrast: Against
    probe: str
    metric: str
    level_or_auc: str
    role: Literal["primary", "secondary"]
    difference: float | None  # student minus control, mean over run seeds
    low: float | None
    high: float | None
    p_raw: float | None
    p_holm: float | None  # within the declared primary contrasts only
    p_source: str  # the one procedure that gave interval and p
    family_size: int  # contrasts that were corrected together: the declared ones, or all others that have a p
    minimum_detectable: float | None  # smallest difference found in 80 % of such studies
    runs_needed: int | None  # runs an arm at which the observed difference would be found in 80 % of studies
    teacher_gap: float | None  # what there is to inherit: teacher minus independent, against control_teacher teacher minus control teacher
    gap_low: float | None
    gap_high: float | None
    fidelity: float | None  # student's top-1 agreement with its teacher on clean images, minus the independent's
    n_runs: int
    n_teachers: int  # teacher runs behind the students; against control_teacher behind the side that has fewer
    verdict: Verdict
    reason: str | None
    signal_gate: GateStatus = ""
    note: str | None = None  # what a reader should know beside the verdict: which levels of a mean carry too little signal
    p_bh: float | None = None  # Benjamini-Hochberg over the contrasts that were not declared
    teachers_apart: float | None = None  # against control_teacher: validation accuracy of the teachers minus the control teachers', means


class TransferRow(Row):
    """One row of `transfer.parquet`: the ratio tau = (student - independent) / (teacher - second independent), where it may be read."""

    pair: int
    teacher: str
    student: str
    method: str
    metric: str  # "accuracy"
    probe: str  # a probe, or "all": pooled over the probes, sum(dS dT) / sum(dT^2)
    level_or_auc: str
    tau: float | None  # 1: the student stands where its teacher stands; 0: where the independents stand
    low: float | None
    high: float | None
    teacher_gap: float | None  # teacher minus second independent
    gap_low: float | None
    gap_high: float | None
    n_runs: int
    status: Literal["ok", "not_measurable"]
    reason: str | None


class GainRow(Row):
    """One row of `gains.parquet`: of the images on which teacher and independent differ, those where one arm goes with the teacher.

    Counts are means over runs and draws; the interval is over images.
    """

    pair: int
    teacher: str
    student: str
    arm: str  # a method's label, a control of it, or "independent" and "second_independent" in the student's place
    direction: Literal["gained", "lost"]  # teacher right and independent wrong, or teacher wrong and independent right
    probe: str  # as in ResultRow
    level: str
    n_runs: int
    n_images: int
    count: float  # where the arm answers as rightly, or as wrongly, as the teacher
    of: float
    share: float | None  # count / of
    low: float | None
    high: float | None
    expected: float | None  # the share if the arm were tied to the teacher no more than untaught networks are; None without such networks


class SimilarityRow(Row):
    """One row of `similarity.parquet`: the CKA of one layer of a network with one of another, on the same clean test images."""

    a: str  # run, as in ResultRow
    b: str
    layer_a: str  # "stage1" (the mean over positions), "stage1_grid", "stage1_class_token", ..., "pooled"
    layer_b: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    status: Literal["ok", "not_measurable"]
    reason: str | None


class PairRow(Row):
    """One row of `pairs.parquet`: one figure of two networks on the same images."""

    a: str  # run, as in ResultRow; where a figure has a direction, such as a difference, it is a's minus b's
    b: str
    probe: str  # as in ResultRow
    level: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    unit: str
    status: Literal["ok", "not_measurable"]
    reason: str | None


class EstimateModel(Row):
    """An Estimate as it stands in a record."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = ""
    status: Literal["ok", "not_measurable"] = "ok"
    reason: str | None = None

    @classmethod
    def of(cls, estimate: Estimate) -> "EstimateModel":
        return cls(**asdict(estimate))


class EpochRow(Row):
    """One line of `log.jsonl`: means over the epoch, unweighted terms."""

    epoch: int
    learning_rate: float
    loss: float
    terms: dict[str, float]
    train_accuracy: float | None  # on the augmented training images, while they were trained on; None without labels
    validation_accuracy: float
    seconds: float
    images_per_second: float


class RunRecord(Row):
    """`record.json` of one trained network, teacher or student. Between two equal runs on one machine only `TIMING` differs."""

    format: int = FORMAT
    run: str  # folder name under runs/
    label: str  # for people: "kd: vit -> cnn, seed 0"
    arm: str
    control: str | None = None  # which control of its method it is: twin, shuffled_teacher, control_teacher
    method: str | None
    method_settings: dict[str, Any] = Field(default_factory=dict)
    teacher: str | None
    teacher_run: str | None
    teacher_epoch: int | None = None  # the epoch whose weights taught, where they are not the last
    teacher_weights: dict[str, str | None] = Field(default_factory=dict)
    """By run, SHA-256 of the last weights of the teachers that it depends on: its own, and the one with which that was matched."""
    student: str
    model: str  # e.g. "small/resnet20"
    family: str  # "cnn" or "token"
    readout: str
    patch_grid: tuple[int, int] | None = None  # (rows, columns) of the patches that become tokens; None: no such patches
    seed: int
    parameters: int
    flops: int | None = None  # of one image's forward pass, a multiplication and an addition counting as two; None: not known
    weights: str | None = None  # SHA-256 of network.safetensors
    evaluated_weights: str = "last"  # "last", "averaged" (ema), or "epoch 12": the best one, after early stopping
    batch_norm: str | None = None  # with several devices: "synchronised" or "each device's own"; None where there is none to tell apart
    training: dict[str, Any]
    history: list[EpochRow]
    estimates: dict[str, EstimateModel]  # validation_accuracy, temperature; of teachers also train_accuracy, mean_confidence
    notes: list[str] = Field(default_factory=list)
    plugins: dict[str, str] = Field(default_factory=dict)  # "method/kd" -> source hash
    timing: dict[str, float]
    """seconds, seconds_per_epoch, images_per_second, teacher_cached (share of the answers), teacher_share (of the steps' seconds),
    peak_memory_mb (of the process on a CPU, of torch's tensors on a GPU); what could not be measured is left out."""
    software: dict[str, str]
    hardware: dict[str, str]

    def save(self, folder: Path) -> None:
        write_json(folder / "record.json", self.model_dump())

    @classmethod
    def load(cls, folder: Path) -> "RunRecord":
        """Read a record; raises RunError for one that is damaged or of another format."""
        data = read_json(folder / "record.json")
        if not isinstance(data, dict):
            raise RunError(f"{folder / 'record.json'} is damaged: it holds no record. Delete that folder to make it again.")
        if data.get("format") != FORMAT:
            raise RunError(
                f"{folder / 'record.json'} has format {data.get('format')}, this version reads {FORMAT}: "
                "use the version that wrote it, or another --out folder"
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise RunError(
                f"{folder / 'record.json'} is damaged: {error.errors()[0]['msg']}. Delete that folder to make it again."
            ) from error
