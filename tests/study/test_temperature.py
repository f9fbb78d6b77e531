"""The temperature in a record: fitted on clean validation images, or the reason why it is not."""

import numpy as np
import pytest

from crossdistill.core.types import Observations
from crossdistill.study.temperature import temperature


def answers(n: int = 400, *, scale: float = 1.0, seed: int = 0) -> Observations:
    """Labels drawn from softmax(logits), then logits `scale` times as large: the honest temperature is `scale`."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (n, 4))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (generator.random((n, 1)) > shares.cumsum(axis=1)).sum(axis=1)
    return Observations((scale * logits).astype(np.float32), labels, np.arange(n), split="validation")


def test_it_is_what_the_logits_were_multiplied_with() -> None:
    found = {scale: temperature(answers(4000, scale=scale)) for scale in (0.5, 1.0, 3.0)}
    for scale, estimate in found.items():
        assert (estimate.status, estimate.unit, estimate.n) == ("ok", "temperature", 4000)
        assert estimate.value == pytest.approx(scale, rel=0.06)  # 4,000 labels tell it to about 2.5 %
    assert found[3.0].value == pytest.approx(3 * found[1.0].value, rel=1e-4)


def test_it_is_the_least_of_a_slow_scan() -> None:
    seen = answers(60, scale=2.0)
    rows, logits = np.arange(60), seen.logits.astype(np.float64)

    def loss(divisor: float) -> float:
        return float((np.log(np.exp(logits / divisor).sum(axis=1)) - logits[rows, seen.labels] / divisor).mean())

    grid = np.exp(np.linspace(np.log(0.1), np.log(50), 20001))
    assert temperature(seen).value == pytest.approx(min(grid, key=loss), rel=1e-3)


def test_it_is_refused_where_a_bound_would_be_told_instead() -> None:
    seen = answers(40)
    sure = Observations(np.eye(4, dtype=np.float32)[seen.labels], seen.labels, seen.index)
    wrong = Observations(-sure.logits, seen.labels, seen.index)
    assert "below 0.01 (the network is right on 40 of 40 validation images)" in str(temperature(sure).reason)
    assert "above 100 (the network is right on 0 of 40 validation images)" in str(temperature(wrong).reason)
    for refused in (temperature(sure), temperature(wrong)):
        assert (refused.value, refused.status) == (None, "not_measurable")


def test_it_is_refused_of_few_images_and_of_logits_that_are_not_finite() -> None:
    assert "on 20 validation images or more, and there are 19" in str(temperature(answers(19)).reason)
    assert temperature(answers(20)).status == "ok"
    broken = answers(40)
    broken.logits[3, 1] = np.nan
    assert "not finite" in str(temperature(broken).reason)
