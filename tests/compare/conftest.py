"""Made-up studies: records and answers of networks whose behaviour is planted."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from crossdistill.compare import ObservedRun, Pair
from crossdistill.core.records import RunRecord
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


@pytest.fixture
def made():
    """The builders above, for tests in this folder."""
    return SimpleNamespace(
        record=record, seen=seen, answers=answers, study=study, network=network, labels=LABELS, n_images=N_IMAGES, n_classes=N_CLASSES
    )
