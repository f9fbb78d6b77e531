"""A believable study folder, made from invented answers: two pairs, kd and independents, three probes, a cue-conflict set."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from crossdistill.compare import Contrast, ObservedRun, Pair, inheritance_table, results_table, write_table
from crossdistill.core.records import EpochRow, EstimateModel, InheritanceRow, ResultRow, RunRecord
from crossdistill.core.types import Observations

HOSTILE = "<script>alert(1)</script>"
CLASSES = ("circle", "square", "star", "ring", HOSTILE)
N_IMAGES = 300
PROBES = {
    "localized_noise": (
        ("fraction=0.05", "fraction=0.2", "fraction=0.4"),
        "A high accuracy means that a patch of noise does not distract.",
    ),
    "scramble": (("grid=2", "grid=4"), "A high accuracy means that the global layout is not needed."),
    "superpixel": (("n_segments=64", "n_segments=36", "n_segments=16"), "A high accuracy means that coarse layout and colour suffice."),
}
# Share of right answers: clean, then how much of it each probe leaves at its hardest level; then the cue that is followed.
TRAITS = {
    ("vit", "teacher"): (0.93, {"localized_noise": 0.9, "scramble": 0.85, "superpixel": 0.5}, {"shape": 0.35, "texture": 0.55}),
    ("cnn", "teacher"): (0.95, {"localized_noise": 0.6, "scramble": 0.45, "superpixel": 0.75}, {"shape": 0.75, "texture": 0.2}),
    ("vit", "independent"): (0.88, {"localized_noise": 0.85, "scramble": 0.8, "superpixel": 0.5}, {"shape": 0.3, "texture": 0.6}),
    ("cnn", "independent"): (0.92, {"localized_noise": 0.55, "scramble": 0.4, "superpixel": 0.75}, {"shape": 0.7, "texture": 0.25}),
    ("vit", "kd"): (0.90, {"localized_noise": 0.8, "scramble": 0.65, "superpixel": 0.6}, {"shape": 0.5, "texture": 0.4}),
    ("cnn", "kd"): (0.93, {"localized_noise": 0.68, "scramble": 0.55, "superpixel": 0.7}, {"shape": 0.55, "texture": 0.4}),
}
STUDY_FILE = """name: shape-and-texture
images: {source: trifeature, label: shape, correlated: texture}
networks:
  vit: {model: small/vit}
  cnn: {model: small/resnet8}
pairs:
- {teacher: vit, student: cnn, methods: [kd]}
- {teacher: cnn, student: vit, methods: [kd]}
"""

MakeStudy = Callable[..., Path]


@dataclasses.dataclass
class Planned:
    """One network of the invented study."""

    network: str
    arm: str
    seed: int
    teacher: str | None = None

    @property
    def run(self) -> str:
        return f"{self.arm}-{self.network}-{self.seed}"

    @property
    def label(self) -> str:
        return f"{self.arm}: {f'{self.teacher} -> ' if self.teacher else ''}{self.network}, seed {self.seed}"


@pytest.fixture(scope="session", autouse=True)
def charts_drawn_once() -> Iterator[None]:
    """Equal specifications are drawn once for all tests: most pages here are of the same study, and drawing is most of their time."""
    import vl_convert

    draw, drawn = vl_convert.vegalite_to_svg, {}

    def remembered(specification: dict, **options: Any) -> str:
        key = json.dumps([specification, options], sort_keys=True)
        if key not in drawn:
            drawn[key] = draw(specification, **options)
        return drawn[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vl_convert, "vegalite_to_svg", remembered)
        yield


@pytest.fixture(scope="session")
def make_study() -> MakeStudy:
    """Writes a study into a folder: `make_study(folder, seeds=2, one_teacher_checkpoint=True)`."""
    return write_study


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of two seeds, shared by tests that only read it."""
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def large_study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of six seeds with a teacher run each, so that verdicts are possible."""
    return write_study(tmp_path_factory.mktemp("large_study"), seeds=6, one_teacher_checkpoint=False)


def write_study(folder: Path, *, seeds: int = 2, one_teacher_checkpoint: bool = True, noise: float = 0.01) -> Path:
    networks = list(planned(seeds, 1 if one_teacher_checkpoint else seeds))
    runs = [ObservedRun(record_of(p, one_teacher_checkpoint), observations_of(p, noise)) for p in networks]
    pairs = [Pair(0, "vit", "cnn", ("kd",)), Pair(1, "cnn", "vit", ("kd",))]
    results = results_table(runs, pairs)
    write_table(results, folder / "results.parquet", ResultRow)
    primary = [Contrast(0, "kd", "scramble")]
    write_table(inheritance_table(results, runs, pairs, primary), folder / "inheritance.parquet", InheritanceRow)
    for run in runs:
        run.record.save(folder / "runs" / run.record.run)
    for name, (levels, isolates) in PROBES.items():
        write_probe(folder / "probes" / f"{name}-0123abcd", name, levels, isolates)
    (folder / "study.yaml").write_text(STUDY_FILE + f"seeds: {list(range(seeds))}\n", encoding="utf-8")
    (folder / "plan.json").write_text(json.dumps(plan_of(networks, pairs, one_teacher_checkpoint)), encoding="utf-8")
    return folder


def planned(seeds: int, teacher_seeds: int) -> Iterator[Planned]:
    yield from (Planned(network, "teacher", seed) for network in ("vit", "cnn") for seed in range(teacher_seeds))
    yield from (Planned(network, "independent", seed) for network in ("cnn", "vit") for seed in range(seeds))
    yield from (Planned(s, "kd", seed, teacher=t) for t, s in (("vit", "cnn"), ("cnn", "vit")) for seed in range(seeds))


def plan_of(networks: list[Planned], pairs: list[Pair], one_teacher_checkpoint: bool) -> dict:
    return {
        "format": 1,
        "name": "shape-and-texture",
        "pairs": [{"index": p.index, "teacher": p.teacher, "student": p.student, "methods": list(p.methods)} for p in pairs],
        "primary": [{"pair": 0, "method": "kd", "probe": "scramble"}],
        "tasks": [{"key": p.run, "kind": "train", "label": p.label, "run": p.run} for p in networks],
        "one_teacher_checkpoint": one_teacher_checkpoint,
        "images": {
            "source": "trifeature",
            "train": 2000,
            "validation": 200,
            "test": N_IMAGES,
            "class_names": list(CLASSES),
            "size": [32, 32],
        },
        "factors": {"label": "shape", "correlated": "texture"},
    }


def record_of(p: Planned, one_teacher_checkpoint: bool) -> RunRecord:
    final = TRAITS[p.network, p.arm][0]
    rng = np.random.default_rng([p.seed, len(p.run)])
    history = [epoch_row(epoch, final * (1 - 0.75 * 0.55**epoch) + rng.normal(0, 0.008)) for epoch in range(1, 9)]
    cnn = p.network == "cnn"
    return RunRecord(
        run=p.run,
        label=p.label,
        arm=p.arm,
        method="kd" if p.arm == "kd" else None,
        method_settings={"temperature": 4.0} if p.arm == "kd" else {},
        teacher=p.teacher,
        teacher_run=f"teacher-{p.teacher}-{0 if one_teacher_checkpoint else p.seed}" if p.teacher else None,
        student=p.network,
        model="small/resnet8" if cnn else "small/vit",
        family="cnn" if cnn else "token",
        readout="class",
        seed=p.seed,
        parameters=78042 if cnn else 309706,
        training={"epochs": 8, "batch_size": 128, "optimizer": "adamw"},
        history=history,
        estimates={"validation_accuracy": EstimateModel(value=final, low=final - 0.04, high=final + 0.03, n=200, unit="share")},
        notes=["It answers 99.8 % of its training images rightly and surely, so that it has little to teach beyond the labels."]
        if (p.network, p.arm) == ("cnn", "teacher")
        else [],
        plugins={"model/small": "5f1d7c00aa1b2c3d", **({"method/kd": "0a1b2c3d4e5f6071"} if p.arm == "kd" else {})},
        timing={"seconds": 21.4, "seconds_per_epoch": 2.6, "images_per_second": 760.0},
        software={"python": "3.12.3", "torch": "2.11.0", "crossdistill": "0.1.0"},
        hardware={"device": "cpu", "threads": "2", "processor": "Example CPU at 2.6 GHz"},
    )


def epoch_row(epoch: int, accuracy: float) -> EpochRow:
    accuracy = float(np.clip(accuracy, 0, 1))
    return EpochRow(
        epoch=epoch,
        learning_rate=1e-3,
        loss=2.5 * (1 - accuracy),
        terms={"ce": 2.5 * (1 - accuracy)},
        train_accuracy=accuracy,
        validation_accuracy=accuracy,
        seconds=2.6,
        images_per_second=760.0,
    )


def observations_of(p: Planned, noise: float) -> dict[tuple[str, str, int], Observations]:
    clean, kept, cues = TRAITS[p.network, p.arm]
    own = np.random.default_rng([p.seed, *p.run.encode()])
    # A taught student finds the same images hard as its teacher does, and errs in the same way.
    lesson = own if p.arm == "independent" else np.random.default_rng([*(p.teacher or p.network).encode()])
    clean = clean + own.normal(0, noise)
    labels = np.arange(N_IMAGES) % len(CLASSES)
    found = {("clean", "", 0): answers(lesson, labels, clean)}
    for probe, (levels, _) in PROBES.items():
        hardest = kept[probe] + own.normal(0, noise)
        for place, level in enumerate(levels, 1):
            found[probe, level, 0] = answers(lesson, labels, clean * (1 - (1 - hardest) * place / len(levels)))
    found["conflict", "", 0] = conflict_answers(lesson, {cue: share + own.normal(0, noise) for cue, share in cues.items()})
    return found


def answers(rng: np.random.Generator, labels: np.ndarray, accuracy: float) -> Observations:
    right = rng.random(len(labels)) < accuracy
    decisions = np.where(right, labels, (labels + rng.integers(1, len(CLASSES), len(labels))) % len(CLASSES))
    return Observations(logits_of(rng, decisions), labels, np.arange(len(labels)))


def conflict_answers(rng: np.random.Generator, cues: dict[str, float]) -> Observations:
    factors = {name: (np.arange(N_IMAGES) + place) % len(CLASSES) for place, name in enumerate(("shape", "texture", "colour"))}
    draw = rng.random(N_IMAGES)
    by_shape, by_texture = draw < cues["shape"], draw < cues["shape"] + cues["texture"]
    decisions = np.where(by_shape, factors["shape"], np.where(by_texture, factors["texture"], factors["colour"]))
    return Observations(logits_of(rng, decisions), factors["shape"], np.arange(N_IMAGES), factors, split="conflict")


def logits_of(rng: np.random.Generator, decisions: np.ndarray) -> np.ndarray:
    logits = rng.normal(0, 0.5, (len(decisions), len(CLASSES)))
    logits[np.arange(len(decisions)), decisions] += 5
    return logits.astype(np.float32)


def write_probe(folder: Path, name: str, levels: tuple[str, ...], isolates: str) -> None:
    folder.mkdir(parents=True)
    manifest = {"probe": name, "isolates": isolates, "levels": [{"name": level} for level in levels], "draws": 1}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    picture = Image.new("RGB", (100 * (1 + len(levels)), 300), "white")
    draw = ImageDraw.Draw(picture)
    for column in range(1 + len(levels)):
        for row in range(3):
            colour = (70 * row + 40, 60 + 30 * column, 200 - 40 * row)
            draw.ellipse((100 * column + 15, 100 * row + 15, 100 * column + 85, 100 * row + 85), fill=colour)
    picture.save(folder / "preview.png")
