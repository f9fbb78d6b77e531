"""What every metric promises, whoever wrote it."""

import inspect
import math
import subprocess
import sys
from typing import get_type_hints

import numpy as np
import pytest
from scipy.special import softmax

from crossdistill.core import registry
from crossdistill.core.types import Estimate

N_IMAGES, N_CLASSES = 200, 5
WORDS = np.array(["bear", "cat", "dog", "elephant", "frog"])


def supplied(seed=0):
    """Everything that the comparison can supply, by name, of a network that learnt something; integers."""
    generator = np.random.default_rng(seed)
    labels = np.arange(N_IMAGES) % N_CLASSES
    logits = generator.normal(size=(N_IMAGES, N_CLASSES)).astype(np.float32)
    logits[labels == generator.integers(0, N_CLASSES, N_IMAGES)] += 1
    logits[np.arange(N_IMAGES), labels] += 1.5
    decisions = logits.argmax(axis=1)
    taught, alone = generator.integers(0, N_CLASSES, (2, N_IMAGES))
    return {
        "logits_or_decisions": decisions,
        "decisions": decisions,
        "logits": logits,
        "labels": labels,
        "probe_correct": generator.random(N_IMAGES) < 0.5,
        "clean_correct": decisions == labels,
        "student_logits": logits,
        "teacher_logits": generator.normal(size=(N_IMAGES, N_CLASSES)).astype(np.float32),
        "shape_labels": labels,
        "texture_labels": (labels + 1) % N_CLASSES,
        "colour_labels": (labels + 2) % N_CLASSES,
        "correct_a": decisions == labels,
        "correct_b": generator.random(N_IMAGES) < 0.5,
        "decisions_a": decisions,
        "decisions_b": generator.integers(0, N_CLASSES, N_IMAGES),
        "student_decisions": np.where(generator.random(N_IMAGES) < 0.5, taught, alone),
        "teacher_decisions": taught,
        "independent_decisions": alone,
        "second_independent_decisions": np.where(generator.random(N_IMAGES) < 0.3, taught, alone),
        "clean_decisions": decisions,
        "probe_decisions": np.where(generator.random(N_IMAGES) < 0.7, decisions, decisions[::-1]),
        "clean_logits": logits,
        "probe_logits": np.where(generator.random((N_IMAGES, 1)) < 0.7, logits, logits[::-1]),
        "probabilities": softmax(logits.astype(np.float64), axis=1),
        "pool_probe_accuracies": np.array([0.2, 0.4, 0.7]),
        "pool_clean_accuracies": np.array([0.3, 0.6, 0.99]),
        "student_runs": np.array([0.5, 0.6, 0.55]),
        "independent_runs": np.array([0.4, 0.45, 0.43]),
        "features_a": logits,
        "features_b": generator.normal(size=(N_IMAGES, 8)) + logits[:, :1],
        "attention_distance": generator.uniform(0.2, 1.2, size=(N_IMAGES, 2, 3)),
        "receptive_field": generator.random((N_IMAGES, 1)) * np.linspace(0, 1, 257) ** 2,
        "chance": 1 / N_CLASSES,
    }


def inputs_of(metric, given):
    parameters = inspect.signature(metric.function).parameters.values()
    return {p.name: given[p.name] for p in parameters if p.name in given}


def figures_of(metric, given):
    result = metric.function(**inputs_of(metric, given))
    return {metric.name: result} if isinstance(result, Estimate) else dict(result)


def numbers(figures):
    return {name: (e.value, e.low, e.high, e.n) for name, e in figures.items()}


@pytest.fixture(params=registry.names("metric"))
def metric(request):
    return registry.get("metric", request.param)


def test_it_says_what_it_is_where_it_comes_from_and_in_which_unit(metric):
    assert metric.kind == "metric"
    assert len(metric.summary) > 20
    assert metric.facts["source"]
    assert metric.facts["unit"]
    assert get_type_hints(metric.function)["return"] in (Estimate, dict[str, Estimate])


def test_every_input_without_a_default_is_one_that_can_be_supplied(metric):
    parameters = inspect.signature(metric.function).parameters.values()
    assert {p.name for p in parameters if p.default is p.empty} <= supplied().keys()


def test_its_figures_are_finite_and_inside_their_intervals(metric):
    for estimate in figures_of(metric, supplied()).values():
        assert estimate.status == "ok"
        assert math.isfinite(estimate.value)
        assert estimate.n > 0
        assert estimate.unit
        assert (estimate.low is None) == (estimate.high is None)
        if estimate.low is not None:
            assert estimate.low <= estimate.value <= estimate.high


def test_the_same_input_gives_the_same_figures(metric):
    assert numbers(figures_of(metric, supplied())) == numbers(figures_of(metric, supplied()))


def test_the_order_of_images_does_not_matter(metric):
    given, order = supplied(), np.random.default_rng(1).permutation(N_IMAGES)
    shuffled = {name: value[order] if np.shape(value)[:1] == (N_IMAGES,) else value for name, value in given.items()}
    before, after = numbers(figures_of(metric, given)), numbers(figures_of(metric, shuffled))
    assert after == {name: pytest.approx(figure, abs=1e-12) for name, figure in before.items()}  # sums in another order


def test_text_labels_give_what_integers_give(metric):
    given = supplied()
    as_text = {name: WORDS[value] if "decisions" in name or name.endswith("labels") else value for name, value in given.items()}
    assert numbers(figures_of(metric, as_text)) == numbers(figures_of(metric, given))


def test_a_repeated_draw_adds_nothing(metric):
    given = supplied()
    drawn = ("logits", "probe_logits", "probabilities", "probe_correct", "correct_a", "correct_b", "student_logits", "teacher_logits")
    twice = {name: np.stack([value, value]) if name in drawn or "decisions" in name else value for name, value in given.items()}
    once = numbers(figures_of(metric, given))
    # The bootstrap and the Wilson formula see the same image means.
    assert numbers(figures_of(metric, twice)) == {name: pytest.approx(figure, abs=1e-12) for name, figure in once.items()}


def test_empty_input_is_refused(metric):
    empty = {name: value[:0] if isinstance(value, np.ndarray) else value for name, value in supplied().items()}
    with pytest.raises(ValueError, match="at least one"):
        figures_of(metric, empty)


def test_its_input_is_left_as_it_was(metric):
    given, untouched = supplied(), supplied()
    figures_of(metric, given)
    assert all(np.array_equal(given[name], untouched[name]) for name in given)


def test_metrics_and_comparison_import_neither_torch_nor_scipy_stats():
    script = (
        "import sys; from crossdistill.core import registry; import crossdistill.compare;"
        "[registry.get('metric', name) for name in registry.names('metric')];"
        "sys.exit(', '.join(name for name in ('torch', 'scipy.stats', 'pandas', 'pyarrow') if name in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")
