"""The two validity gates by hand."""

import numpy as np
import pytest

from crossdistill.metrics._gates import accuracy_gate, signal_gate


@pytest.mark.parametrize(
    ("ceiling", "floor", "trained", "status"),
    [
        (0.30, 0.10, False, "passed"),  # 20 points are enough, although 0.3 - 0.1 is less than 0.2 in floating point
        (0.2999, 0.10, False, "not run"),  # the ceiling may be higher: no network was trained on the probe
        (0.2999, 0.10, True, "failed"),
        (0.05, 0.10, True, "failed"),  # a ceiling under the floor
        (1.00, 0.80, True, "passed"),
        (1.00, 0.81, False, "failed"),  # not even a faultless network would pass
    ],
)
def test_the_signal_gate_asks_for_twenty_points(ceiling: float, floor: float, trained: bool, status: str) -> None:
    assert signal_gate(ceiling, floor, trained=trained) == status


def test_the_accuracy_gate_names_the_figures_that_it_rests_on() -> None:
    right = np.arange(1000) < 600
    assert accuracy_gate(right, 0.1) is None
    assert "clean accuracy 60.0 % on 1,000 images is not clearly above the 58.0 % of chance" in (accuracy_gate(right, 0.58) or "")
