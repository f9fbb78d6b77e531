"""The benchmark of the metrics, at a size that takes seconds: every figure of a study is there, and what it cost."""

from pathlib import Path

import pytest


def test_a_small_run_measures_every_metric_of_every_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import metrics_speed  # type: ignore[import-not-found]

    found = metrics_speed.measured(n_images=200, n_probes=1, seeds=2)
    assert found["networks"] == 2 * 9 + 3
    assert found["draws"] == [3]
    assert min(found["rows"].values()) > 0
    assert {"retention", "agreement_kappa", "js_invariance", "calibration", "side_with_teacher"} <= found["seconds_of_metrics"].keys()
    assert 0 < sum(found["seconds_of_metrics"].values()) < found["seconds"]["all"]
