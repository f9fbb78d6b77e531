"""Made-up studies: records and answers of networks whose behaviour is planted."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from crossdistill.compare import ObservedRun, Pair
from crossdistill.core.records import EstimateModel, ResultRow, RunRecord
from crossdistill.core.types import Observations

N_IMAGES, N_CLASSES = 1000, 10
LABELS = np.arange(N_IMAGES) % N_CLASSES


def record(arm, seed=0, *, student="cnn", teacher=None, teacher_run=None):
    return RunRecord(
        run=f"{arm}-{student}-{seed}",
        label=f"{arm}: {student}, seed {seed}",
        arm=arm,
        method=None if arm in ("teacher", "independent") else arm,
        teacher=teacher,
        teacher_run=teacher_run,
        student=student,
        model="small/resnet8",
        family="cnn",
        readout="class",
        seed=seed,
        parameters=1,
        training={},
        history=[],
        estimates={},
        timing={},
        software={},
        hardware={},
    )


def seen(decisions, labels=LABELS, *, index=None, factors=None, split="test", sharpness=5.0):
    """Observations of a network that answers `decisions`, each with the same certainty."""
    decisions = np.asarray(decisions)
    logits = np.zeros((len(decisions), N_CLASSES), dtype=np.float32)
    logits[np.arange(len(decisions)), decisions] = sharpness
    index = np.arange(len(decisions)) if index is None else np.asarray(index)
    return Observations(logits, np.asarray(labels), index, factors or {}, split)


def answers(accuracy, seed):
    """Decisions that are right on about `accuracy` of the images, wrong at random on the others; keyed by `seed`."""
    generator = np.random.default_rng(seed)
    wrong = (LABELS + generator.integers(1, N_CLASSES, N_IMAGES)) % N_CLASSES
    return np.where(generator.random(N_IMAGES) < accuracy, LABELS, wrong)


def study(n_runs, *, student: Callable, independent: Callable, teacher: Callable, n_teachers=None):
    """One pair, vit -> cnn by kd. Each callable maps a run seed to {(probe, level, draw): observations}."""
    n_teachers = n_runs if n_teachers is None else n_teachers
    runs = [ObservedRun(record("teacher", s, student="vit"), teacher(s)) for s in range(n_teachers)]
    runs += [ObservedRun(record("independent", s), independent(s)) for s in range(n_runs)]
    for s in range(n_runs):
        taught_by = f"teacher-vit-{min(s, n_teachers - 1)}"
        runs.append(ObservedRun(record("kd", s, teacher="vit", teacher_run=taught_by), student(s)))
    return runs, [Pair(0, "vit", "cnn", ("kd",))]


def network(clean, probe, kind):
    """A network kind: run seed -> clean answers and one probe of three levels around the accuracy `probe`."""

    def observed(seed):
        key = [seed, sum(map(ord, kind))]
        found = {("clean", "", 0): seen(answers(clean, key))}
        for place, shift in enumerate((0.05, 0.0, -0.05)):
            found["scramble", f"grid={2 + place}", 0] = seen(answers(probe + shift, [*key, place]))
        return found

    return observed


def one_level(clean, probe, kind):
    """The network of that kind, shown the probe at its middle level alone."""
    observed = network(clean, probe, kind)
    return lambda seed: {key: seen for key, seen in observed(seed).items() if key[1] in ("", "grid=3")}


class Planted:
    """A study whose results are planted figure by figure: runs without observations, and the rows of their results."""

    def __init__(self):
        self.runs, self.results = [], []

    def arm(self, arm, values, *, student="cnn", teacher=None, taught_by=None, validation=None, **row):
        """Runs of an arm with these figures, one a run, of run seeds 0, 1, ...; returns their names.

        `taught_by` are the names of the runs that taught them, `validation` the validation accuracy of each. `row` are fields of their
        result rows (by default accuracy on "scramble" at "auc", with an interval of a point to either side).
        """
        taught_by, validation = taught_by or [None] * len(values), validation or [None] * len(values)
        records = [record(arm, seed, student=student, teacher=teacher, teacher_run=by) for seed, by in enumerate(taught_by)]
        estimates = [{} if share is None else {"validation_accuracy": EstimateModel(value=share, unit="share")} for share in validation]
        self.runs += [ObservedRun(r.model_copy(update={"estimates": e}), {}) for r, e in zip(records, estimates, strict=True)]
        names = [r.run for r in records]
        self.figures(names, values, **row)
        return names

    def figures(self, runs, values, *, half=0.01, **row):
        """Further rows of these runs, whose `row` fields differ from accuracy on "scramble" at "auc"."""
        of_run = {run.record.run: run.record for run in self.runs}
        usual = {"probe": "scramble", "level": "auc", "metric": "accuracy", "n": 1000, "unit": "share", "status": "ok", "reason": None}
        for name, value in zip(runs, values, strict=True):
            r = of_run[name]
            whose = {name: getattr(r, name) for name in ("run", "arm", "method", "teacher", "student", "seed", "teacher_run")}
            interval = {"low": value - half, "high": value + half}
            self.results.append(ResultRow(**{**whose, "value": value, **interval, **usual, **row}))


@pytest.fixture
def planted():
    """An empty planted study."""
    return Planted()


@pytest.fixture(scope="session")
def made():
    """The builders above, for tests in this folder."""
    return SimpleNamespace(
        record=record,
        seen=seen,
        answers=answers,
        study=study,
        network=network,
        one_level=one_level,
        labels=LABELS,
        n_images=N_IMAGES,
        n_classes=N_CLASSES,
    )
