"""Grids of a method's weight: the small study that chooses one of each on validation images, and what it says."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from crossdistill.core.config import PairConfig, StudyConfig
from crossdistill.core.method_config import MethodConfig
from crossdistill.core.records import subject
from crossdistill.images._splits import VALIDATION
from crossdistill.study.launch import device_count

N_SEEDS = 2  # run seeds that choose; one where the study has no more


@dataclass(frozen=True)
class Tried:
    """One student that was trained to choose a weight."""

    seed: int
    run: str
    validation_accuracy: float | None
    validation_images: int = 0
    failed: str | None = None  # why it has no accuracy


@dataclass(frozen=True)
class Choice:
    """The grid of one method between one teacher and one student, and how each weight did: {weight: its students}."""

    teacher: str
    student: str
    arm: str
    tried: Mapping[float, tuple[Tried, ...]]

    @property
    def subject(self) -> str:
        return subject(self.arm, self.teacher, self.student)

    @property
    def means(self) -> dict[float, float]:
        """{weight: mean validation accuracy} of the weights of which every student has one."""
        found = {weight: [one.validation_accuracy for one in tried] for weight, tried in self.tried.items()}
        known = {weight: [value for value in values if value is not None] for weight, values in found.items()}
        return {weight: round(fmean(known[weight]), 9) for weight, values in found.items() if values and len(known[weight]) == len(values)}

    @property
    def chosen(self) -> float | None:
        """The weight by the rule; None where no weight has an accuracy."""
        return min(self.means, key=lambda weight: (-self.means[weight], weight), default=None)

    def plain(self) -> dict[str, object]:
        """What `weights.json` holds of it."""
        rows = [
            {"weight": weight, "validation_accuracy": self.means.get(weight), "runs": [asdict(one) for one in tried]}
            for weight, tried in self.tried.items()
        ]
        place = {"teacher": self.teacher, "student": self.student, "arm": self.arm}
        return {**place, "grid": list(self.tried), "weights": rows, "chosen": self.chosen}

    def in_words(self) -> str:
        """One line for people.

        >>> tried = {0.5: (Tried(0, "", 0.75),), 2.0: (Tried(0, "", 0.8),), 9.0: (Tried(0, "", None, failed="not finite"),)}
        >>> Choice("vit", "cnn", "kd", tried).in_words()
        'weight of kd: vit -> cnn: 2, chosen on validation images (0.5: 75.0 %, 2: 80.0 %, 9: failed)'
        """
        shares = [f"{w:g}: {f'{100 * self.means[w]:.1f} %' if w in self.means else 'failed'}" for w in self.tried]
        return f"weight of {self.subject}: {self.chosen:g}, chosen on validation images ({', '.join(shares)})"


def grids(config: StudyConfig) -> dict[str, tuple[float, ...]]:
    """{subject of a method's students: the weights among which is chosen}."""
    return {subject(m.arm, pair.teacher, pair.student): m.grid for pair in config.pairs for m in pair.methods if m.grid}


def in_words(among: Mapping[str, Sequence[float]]) -> str:
    """Grids for people.

    >>> in_words({"kd: vit -> cnn": (0.5, 2.0), "crd: vit -> cnn": (0.2, 0.8)})
    'kd: vit -> cnn among 0.5, 2; crd: vit -> cnn among 0.2, 0.8'
    """
    return "; ".join(f"{name} among {', '.join(f'{weight:g}' for weight in grid)}" for name, grid in among.items())


def choosing_study(config: StudyConfig) -> StudyConfig:
    """The study that chooses: methods with grids alone, each weight a method of its own, and validation images for test images.

    Raises SettingError where trainings share several devices.
    """
    device_count(config)
    pairs = [
        pair.model_copy(update={"control_teacher": None, "methods": tuple(_one(method, w) for method in pair.methods for w in method.grid)})
        for pair in config.pairs
    ]
    return config.model_copy(update={
        "name": f"{config.name}-weights",
        "images": config.images.model_copy(update={"test": VALIDATION, "test_images": None, "cue_conflict": None}),
        "pairs": tuple(pair for pair in pairs if pair.methods),
        "seeds": config.seeds[:N_SEEDS],
        "arms": (), "probes": (), "primary": (), "signal_gate": "off", "wanted": {},
        "observe": config.observe.model_copy(update={"instruments": ()}),
    })  # fmt: skip


def with_weights(config: StudyConfig, chosen: Mapping[str, float]) -> StudyConfig:
    """The study with these weights, {subject: weight}; of a grid that is not among them with its first."""

    def settled(pair: PairConfig, method: MethodConfig) -> MethodConfig:
        weight = chosen.get(subject(method.arm, pair.teacher, pair.student), next(iter(method.grid), None))
        return method.model_copy(update={"weight": weight}) if method.grid else method

    pairs = (pair.model_copy(update={"methods": tuple(settled(pair, method) for method in pair.methods)}) for pair in config.pairs)
    return config.model_copy(update={"pairs": tuple(pairs)})


def _one(method: MethodConfig, weight: float) -> MethodConfig:
    """A weight of a method's grid as a method of its own."""
    return method.model_copy(update={"weight": weight, "label": weight_label(method.arm, weight)})


def weight_label(arm: str, weight: float) -> str:
    """The arm of one weight of a grid: also a folder's name, in which a plus would stand for a control.

    >>> weight_label("crd", 0.8), weight_label("crd", 3.0), weight_label("crd", 1e39), weight_label("crd", 0.12345678)
    ('crd-0.8', 'crd-3', 'crd-1e39', 'crd-0.12345678')
    """
    text = f"{weight:g}" if float(f"{weight:g}") == weight else repr(weight)
    return f"{arm}-{text.replace('+', '')}"
