import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from crossdistill.metrics.conditional_retention import conditional_retention


def values(estimates):
    return {name: estimate.value for name, estimate in estimates.items()}


def observed(generator, n=400, n_classes=4):
    """A network that is right on 70 % of clean images and, where it was, twice as often right on the probe as elsewhere."""
    labels = generator.choice(n_classes, n, p=[0.4, 0.3, 0.2, 0.1])
    clean = generator.random(n) < 0.7
    kept = generator.random(n) < np.where(clean, 0.6, 0.3)
    return np.where(kept, labels, generator.choice(n_classes, n, p=[0.5, 0.2, 0.2, 0.1])), labels, clean


def literal(decisions, labels, clean):
    """The definition image by image."""
    kept = [d == y for d, y, right in zip(decisions, labels, clean, strict=True) if right]
    blind = [np.mean([d == y for d in decisions]) for y, right in zip(labels, clean, strict=True) if right]
    return np.mean(kept), np.mean(blind)


def test_by_hand():
    labels = np.repeat(["cat", "dog"], [60, 40])
    clean = np.repeat([True, False, True], [50, 10, 40])  # 50 cats and 40 dogs
    decisions = np.repeat(["cat", "dog", "cow", "dog"], [40, 20, 20, 20])  # 40 cats and 20 dogs kept; answers 40, 40 and 20
    found = conditional_retention(decisions, labels, clean)
    assert values(found) == pytest.approx({"share": 60 / 90, "chance": 0.4, "above_chance": 60 / 90 - 0.4})
    assert (found["share"].low, found["share"].high) == pytest.approx(proportion_confint(60, 90, method="wilson"))
    assert {estimate.n for estimate in found.values()} == {90}


def test_equals_the_definition_image_by_image():
    given = observed(np.random.default_rng(0))
    found = values(conditional_retention(*given))
    share, chance = literal(*given)
    assert found == pytest.approx({"share": share, "chance": chance, "above_chance": share - chance})


def test_the_interval_of_the_difference_is_that_of_resampled_images():
    generator = np.random.default_rng(1)
    decisions, labels, clean = observed(generator)
    estimate, resampled = conditional_retention(decisions, labels, clean)["above_chance"], []
    for _ in range(1000):
        rows = generator.integers(0, len(labels), len(labels))
        share, chance = literal_counts(decisions[rows], labels[rows], clean[rows])
        resampled.append(share - chance)
    # 1,000 resamples know a standard error to 2 % (one standard deviation).
    assert (estimate.high - estimate.low) / 2 / 1.966 == pytest.approx(np.std(resampled), rel=0.08)


def literal_counts(decisions, labels, clean):
    answered = np.bincount(decisions, minlength=4) / len(decisions)
    return (decisions == labels)[clean].mean(), answered[labels[clean]].mean()


def test_answers_that_are_dealt_out_blindly_are_at_chance():
    generator, missed = np.random.default_rng(2), 0
    for _ in range(400):
        _, labels, clean = observed(generator, n=200)
        blind = generator.permutation(generator.choice(4, len(labels), p=[0.7, 0.1, 0.1, 0.1]))
        estimate = conditional_retention(blind, labels, clean)["above_chance"]
        missed += not estimate.low <= 0 <= estimate.high
    assert 8 <= missed <= 32  # 5 % of 400, give or take 2.8 standard deviations


def test_a_network_that_keeps_everything_has_retention_one():
    labels = np.arange(90) % 3
    found = values(conditional_retention(labels, labels, np.ones(90, bool)))
    assert found == pytest.approx({"share": 1, "chance": 1 / 3, "above_chance": 2 / 3})


def test_answers_that_collapse_to_one_class_keep_no_more_than_chance():
    labels = np.arange(90) % 3
    found = conditional_retention(np.zeros(90, int), labels, np.ones(90, bool))
    assert values(found) == pytest.approx({"share": 1 / 3, "chance": 1 / 3, "above_chance": 0})
    assert (found["above_chance"].low, found["above_chance"].high) == pytest.approx((0, 0))  # whatever the images are


def test_draws_are_averaged_inside_an_image():
    labels, clean = np.arange(90) % 3, np.ones(90, bool)
    found = conditional_retention(np.stack([labels, np.zeros(90, int)]), labels, clean)
    assert values(found) == pytest.approx({"share": 2 / 3, "chance": 1 / 3, "above_chance": 1 / 3})
    assert found["share"].n == 90


def test_a_constant_predictor_is_not_measurable():
    labels = np.arange(300) % 3
    found = conditional_retention(np.zeros(300, int), labels, labels == 0)
    assert {estimate.status for estimate in found.values()} == {"not_measurable"}
    assert "constant answer" in found["share"].reason


def test_too_few_images_right_on_clean_are_not_measurable():
    labels = np.arange(300) % 3
    assert conditional_retention(labels, labels, np.arange(300) < 30)["share"].status == "ok"
    found = conditional_retention(labels, labels, np.arange(300) < 29)
    assert {estimate.status for estimate in found.values()} == {"not_measurable"}
    assert found["share"].reason.startswith("29 images are right on clean")


def test_refuses_other_images():
    with pytest.raises(ValueError, match="cover the same images"):
        conditional_retention(np.zeros(40, int), np.zeros(40, int), np.ones(41, bool))
