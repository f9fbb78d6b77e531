"""The simulation behind the operating characteristics: its model is what it says, and a tiny run of it goes through."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossdistill.metrics.side_with_teacher import side_with_teacher


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import coverage_scenarios  # type: ignore[import-not-found]
    import simulated_studies  # type: ignore[import-not-found]

    return simulated_studies, coverage_scenarios


@pytest.fixture
def coverage(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script itself. Its name is that of a well-known package too, which may have been imported."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("coverage_benchmark", Path(__file__).parents[1] / "benchmarks" / "coverage.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "coverage_benchmark", module)
    spec.loader.exec_module(module)
    return module


def test_runs_score_what_the_model_says(benchmarks: Any) -> None:
    simulated, _ = benchmarks
    random = np.random.default_rng(0)
    images = simulated.Images(random, 1000, ("clean", "probe"))
    scores = [np.mean(images.answer(random, "probe", 0.5, random.standard_normal(1000)) == images.labels) for _ in range(300)]
    # The standard deviation of a score on these images is at most 1.6 points, that of the mean of 300 is 0.09.
    assert np.mean(scores) == pytest.approx(images.expected("probe", np.array(0.5)), abs=0.004)
    assert np.std(scores) < 0.016


def test_the_mean_over_runs_is_the_mean_of_many_runs(benchmarks: Any) -> None:
    simulated, _ = benchmarks
    random = np.random.default_rng(1)
    images = simulated.Images(random, 500, ("clean", "probe"))
    drawn = images.expected("probe", 0.3 + 0.05 * random.standard_normal(4000)).mean()
    assert images.mean("probe", 0.3, 0.05) == pytest.approx(drawn, abs=0.003)


def test_networks_err_on_the_same_images_and_a_taught_one_as_its_teacher_does(benchmarks: Any) -> None:
    simulated, _ = benchmarks
    random = np.random.default_rng(2)
    images = simulated.Images(random, 4000, ("probe",))
    one, other = (simulated.network(images, random, "independent", seed, {"probe": 0.5}) for seed in (0, 1))
    taught = simulated.network(images, random, "kd", 0, {"probe": 0.5}, teacher=one, passes=0.8)

    def agree(a: Any, b: Any) -> float:
        return float(np.mean((a.decisions("probe") == images.labels) == (b.decisions("probe") == images.labels)))

    # Two normal margins of correlation r have one sign with probability 1/2 + arcsin(r) / pi.
    assert agree(one, other) == pytest.approx(0.5 + np.arcsin(simulated.SHARED) / np.pi, abs=0.025)
    assert agree(one, taught) == pytest.approx(0.5 + np.arcsin(simulated.SHARED + 0.8 * (1 - simulated.SHARED)) / np.pi, abs=0.025)


def test_the_side_rows_are_those_of_the_metric(benchmarks: Any) -> None:
    simulated, scenarios = benchmarks
    random = np.random.default_rng(3)
    images = simulated.Images(random, 1000, ("probe",))
    of_arms = {"teacher": 0.6, "independent": 0.5, "second_independent": 0.5}
    teacher, independent, second = (simulated.network(images, random, arm, 0, {"probe": mean}) for arm, mean in of_arms.items())
    student = simulated.network(images, random, "kd", 0, {"probe": 0.55}, teacher=teacher, passes=0.5)
    rows = {row.metric: row.value for row in scenarios.side_rows(student, teacher, independent, second, images.labels)}
    expected = side_with_teacher(*(one.decisions("probe") for one in (student, teacher, independent, second)), images.labels)
    assert rows == {f"side_with_teacher_{name}": pytest.approx(estimate.value) for name, estimate in expected.items()}


@pytest.mark.parametrize("passes", [0.0, 0.4])
def test_a_planted_effect_stands_in_the_middle_of_many_intervals(benchmarks: Any, passes: float) -> None:
    _, scenarios = benchmarks
    found = []
    for number in range(20):
        random = np.random.default_rng(number)
        [(name, values)] = scenarios.against_independents("planted", random, 5, 300, gap=0.25, passes=passes)
        assert name == "planted"
        found.append(values)
    assert found[0]["truth_points"] == pytest.approx(100 * 0.25 * passes, abs=1)
    assert sum(values["covers"] for values in found) >= 16  # of 20, of which 19 are expected: fewer in 1 of 400 such tests
    assert all(values["found"] for values in found) if passes else sum(values["found"] for values in found) <= 4


def test_shares_have_wilson_intervals_and_means_none(coverage: Any) -> None:
    total = coverage.Total()
    for hit in (True, True, False, True):
        total.add(coverage.Total(float(hit), 1, True))
    figure = total.figure()
    assert (figure["value"], figure["studies"]) == (0.75, 4)
    assert 0.3 < figure["low"] < 0.75 < figure["high"] < 0.96
    assert coverage.Total(3.0, 2, False).figure() == {"value": 1.5, "studies": 2}


def test_a_missed_target_is_said(coverage: Any) -> None:
    def row(share: float, runs: int) -> dict[str, Any]:
        return {"contrast": "independent, no effect", "runs": runs, "covers": {"value": share, "low": 0.9, "high": 1.0, "studies": 2000}}

    rows = [row(0.929, 2), row(0.98, 3), row(0.98, 5), row(0.95, 10)]
    variant = {**row(0.5, 5), "contrast": "independent, no effect, heavy tails"}
    promised = coverage.targets([*rows, variant])
    assert [one["met"] for one in promised] == [False, True, False, True]
    text = coverage.markdown({"rows": rows, "targets": promised})
    assert "2 runs: covers 92.90 %, wanted 93 to 100 %" in text
    assert "5 runs: covers 98.00 %, wanted 93 to 97 %" in text
    assert "| independent, no effect | 92.9 (90.0 to 100.0) | 98.0 (90.0 to 100.0) | 98.0" in text


def test_batches_hold_every_study_once_and_a_quarter_of_the_variants(coverage: Any) -> None:
    tasks = coverage.planned(250, (2, 5), 1000, "independent, no effect")
    numbers = {key: [n for task in tasks if task[:2] == key for n in task.numbers] for key in {task[:2] for task in tasks}}
    assert numbers["independent, no effect", 2] == list(range(250))
    assert numbers["independent, no effect, heavy tails", 5] == list(range(63))
    assert {runs for _, runs in numbers} == {2, 5}


def test_every_scenario_goes_through(coverage: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["coverage.py", "--dry-run", "--runs", "5", "--images", "300"])
    coverage.main()
    printed = capsys.readouterr().out
    figures = json.JSONDecoder().raw_decode(printed)[0]
    contrasts = {row["contrast"]: row for row in figures["rows"]}
    for wanted in ("independent", "control_teacher", "control_teacher_adjusted", "accuracy_matched", "second_independent", "tau"):
        of_kind = [row for name, row in contrasts.items() if name.startswith(f"{wanted},")]
        assert of_kind
        assert all(0 <= row["measurable"]["value"] <= 1 and row["measurable"]["studies"] in (1, 3) for row in of_kind)
    assert set(contrasts["family of eight"]) > {"any_p_holm_at_most_0.05", "any_inherited_or_moved_away"}
    assert "**Verdict `equivalent`, % of studies**\n\n| contrast | 5 runs |\n| --- | --- |\n| independent, no effect | " in printed
