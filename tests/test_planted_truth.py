"""Networks whose behaviour is planted, and what the figures make of them; trained ones are in benchmarks/planted_truth.py."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.compare import ObservedRun, Pair, inheritance_table, results_table
from crossdistill.core.types import ImageSet, Observations
from crossdistill.images._splits import load_splits
from crossdistill.observe import observe

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RESULTS = BENCHMARKS / "results"


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import planted_truth  # type: ignore[import-not-found]

    return planted_truth


@pytest.fixture(scope="module")
def images() -> dict[str, ImageSet]:
    settings = {"label": "shape", "correlated": "texture", "n_train": 20, "n_test": 240, "n_conflict": 500}
    splits = load_splits("trifeature", settings, train_images=10, validation_images=10)
    return {"clean": splits.test, "conflict": splits.extra["conflict"]}


def answering(images: ImageSet, decisions: np.ndarray, split: str, wrong: float = 0.0, seed: int = 0) -> Observations:
    """Observations of a network that gives these answers, but any class on a share `wrong` of the images."""
    generator = np.random.default_rng(seed)
    given = np.where(generator.random(len(images)) < wrong, generator.integers(0, 10, len(images)), decisions)
    logits = np.eye(10, dtype=np.float32)[given] * 5 + generator.normal(0, 0.1, (len(images), 10)).astype(np.float32)
    return Observations(logits, images.labels, np.arange(len(images)), dict(images.factors), split)


def reader(planted: Any, images: dict[str, ImageSet], arm: str, cue: str, seed: int) -> ObservedRun:
    """A network that reads one cue and errs on a tenth of the images."""
    network, teacher = ("shape_reader", None) if arm == "teacher" else ("student", "shape_reader" if arm == "kd" else None)
    answers = {
        (name, "", 0): answering(of, of.factors[cue], "test" if name == "clean" else name, 0.1, 10 * seed + len(arm))
        for name, of in images.items()
    }
    return ObservedRun(planted.record(arm, network, seed, teacher), answers)


def test_a_bag_of_patches_keeps_its_answers_where_whole_patches_change_places(planted: Any, images: dict[str, ImageSet]) -> None:
    torch.manual_seed(0)
    network = planted.bag_of_patches(10, (32, 32))
    network(torch.from_numpy(np.array(images["clean"].images)))  # in train mode, so that its statistics are those of images
    # Its own answers as labels: untrained networks are right about nothing else.
    own = replace(images["clean"], labels=observe(network, images["clean"]).decisions)
    found = planted.under_scramble(network, own)
    for grid in planted.ALIGNED:
        assert found[f"grid={grid}"]["largest_change"] <= 1e-5
        assert found[f"grid={grid}"]["same_answers"]
    cut = found[f"grid={planted.MISALIGNED}"]
    assert cut["largest_change"] > 1e-3  # tiles of half a patch's side: the test can fail


def test_who_reads_one_cue_has_the_bias_of_that_cue(planted: Any, images: dict[str, ImageSet]) -> None:
    conflicts = images["conflict"]
    for cue, expected in {"shape": 1.0, "texture": 0.0}.items():
        figures = planted.biases(answering(conflicts, conflicts.factors[cue], "conflict"))
        assert figures["shape_bias"]["value"] == expected
        assert {name: share["value"] for name, share in figures["cue_bias"].items()} == {
            "colour": 0.0,
            "shape": expected,
            "texture": 1 - expected,
        }


def test_of_a_constant_predictor_no_figure_is_measured_that_would_mean_something(planted: Any, images: dict[str, ImageSet]) -> None:
    found = planted.of_constant(reader(planted, images, "teacher", "shape", 0), reader(planted, images, "independent", "texture", 0))
    assert found["nothing_that_means_something"], found["measured"]
    assert {"shape_bias", "side_with_teacher_rate"} <= found["not_measurable"].keys()


def test_what_a_constant_predictor_inherited_is_not_measurable(planted: Any, images: dict[str, ImageSet]) -> None:
    runs = []
    for seed in range(5):
        taught = reader(planted, images, "kd", "shape", seed)
        constant = {
            place: replace(seen, logits=np.eye(10, dtype=np.float32)[[3] * len(seen.logits)]) for place, seen in taught.observations.items()
        }
        runs += [reader(planted, images, "teacher", "shape", seed), reader(planted, images, "independent", "texture", seed)]
        runs.append(ObservedRun(taught.record, constant))
    pairs = [Pair(0, "shape_reader", "student", ("kd",))]
    rows = inheritance_table(results_table(runs, pairs), runs, pairs, [])
    assert rows
    assert {(row.verdict, row.difference) for row in rows} == {("not_measurable", None)}
    assert all(row.reason for row in rows)


def test_a_student_that_is_its_teacher_always_sides_with_it(planted: Any, images: dict[str, ImageSet]) -> None:
    teacher = reader(planted, images, "teacher", "shape", 0)
    plain = [reader(planted, images, "independent", "texture", seed) for seed in range(2)]
    rates = planted.of_itself(teacher, *plain)
    assert rates["rate"]["value"] == 1.0
    assert rates["wrong_rate"]["value"] == 1.0
    assert rates["second_rate"]["value"] < 0.5


@pytest.mark.parametrize("name", ["planted_truth", "positive_control_shape", "positive_control_colour"])
def test_the_committed_result_passes_its_checks(name: str) -> None:
    checks = json.loads((RESULTS / f"{name}.json").read_text())["figures"]["checks"]
    assert checks
    assert all(checks.values()), checks
