"""Students beyond the line of the independents: against a slow reading, against Welch, on planted networks, and by simulation."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import t

from crossdistill.compare.accuracy_matched import Accuracies, accuracy_matched
from crossdistill.stats import minimum_detectable_effect, runs_needed, welch

BUDGETS = (0.60, 0.67, 0.71, 0.74)
"""Clean accuracies of independents of 40, 60, 80 and 100 % of the epochs."""


def on_line(clean, shift=0.0, offset=-0.8, slope=1.2):
    """A network whose probe accuracy is `shift` logits off the line."""
    return Accuracies(float(clean), float(expit(offset + slope * logit(clean) + shift)))


def draw(generator, n_students, n_seeds, *, effect=0.0, clean=0.72, images=2000, slope=1.2):
    """Students and independents whose accuracies vary with run, seed and images; the students lie `effect` above the line."""

    def seen(accuracy):
        return float(generator.binomial(images, accuracy) / images)

    def network(clean_accuracy, shift, above=0.0):
        true = on_line(clean_accuracy, shift + generator.normal(0, 0.04), slope=slope)
        return Accuracies(seen(true.clean), seen(true.probe + above))

    pool = {}
    for seed in range(n_seeds):
        of_seed, better = generator.normal(0, 0.05), generator.normal(0, 0.006)
        pool[seed] = [network(budget + better + generator.normal(0, 0.006), of_seed) for budget in BUDGETS]
    students = [network(clean + generator.normal(0, 0.008), generator.normal(0, 0.05), effect) for _ in range(n_students)]
    return students, pool


def slow(students, pool):
    """The procedure, read literally: numpy's own least squares, one refit for each seed left out, scipy's t."""

    def foretold(networks):
        slope, offset = np.polyfit([logit(n.clean) for n in networks], [logit(n.probe) for n in networks], 1)
        return [float(expit(offset + slope * logit(s.clean))) for s in students]

    everyone = [network for seed in pool for network in pool[seed]]
    differences = [s.probe - f for s, f in zip(students, foretold(everyone), strict=True)]
    left_out = [np.mean(foretold([n for other in pool if other != seed for n in pool[other]])) for seed in pool]
    n, k = len(students), len(pool)
    a = np.var(differences, ddof=1) / n
    b = (k - 1) / k * sum((m - np.mean(left_out)) ** 2 for m in left_out)
    freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (k - 1))
    error, mean = np.sqrt(a + b), float(np.mean(differences))
    half = t.ppf(0.975, freedom) * error
    return mean, mean - half, mean + half, 2 * t.sf(abs(mean) / error, freedom), minimum_detectable_effect(error, freedom)


@pytest.mark.parametrize(("n_students", "n_seeds"), [(2, 2), (3, 5), (5, 3), (10, 10)])
def test_agrees_with_a_literal_reading(n_students, n_seeds):
    students, pool = draw(np.random.default_rng([n_students, n_seeds]), n_students, n_seeds, effect=0.03)
    found = accuracy_matched(students, pool)
    expected = slow(students, pool)
    figures = (found.difference.value, found.difference.low, found.difference.high, found.p, found.minimum_detectable)
    assert figures == pytest.approx(expected, rel=1e-9)
    assert found.difference.n == min(n_students, n_seeds)
    assert found.source == (
        f"t on run means beyond the line through {4 * n_seeds} independents, jackknife over their seeds, {n_students} v {n_seeds} runs"
    )


def test_a_better_student_on_the_line_has_gained_nothing_although_it_scores_more():
    generator = np.random.default_rng(0)
    pool = {seed: [on_line(b, generator.normal(0, 0.02)) for b in BUDGETS] for seed in range(5)}
    students = [on_line(0.73, generator.normal(0, 0.02)) for _ in range(5)]
    plain = welch(np.array([s.probe for s in students]), np.array([pool[seed][1].probe for seed in pool]))
    assert plain.low > 0.05  # 6 points of clean accuracy, as many on the probe
    found = accuracy_matched(students, pool).difference
    assert found.low < 0 < found.high
    assert found.value == pytest.approx(0, abs=0.01)


def test_an_effect_beside_the_line_is_found():
    students, pool = draw(np.random.default_rng(1), 5, 5, effect=0.10)
    found = accuracy_matched(students, pool)
    assert found.difference.low < 0.10 < found.difference.high
    assert found.p < 0.001
    assert found.minimum_detectable < 0.10
    assert 2 <= found.runs_needed <= 5


def test_a_flat_line_leaves_welchs_test_on_run_means():
    # Each seed has one probe accuracy at all budgets, and its budgets balance: slope 0. Only the independents' mean is taken in logits
    # and not in shares: with runs 1 point apart the two means differ by about var / 2 (1 - 2p) / (p (1 - p)) = 0.007 points.
    probes = np.array([0.30, 0.31, 0.29, 0.315, 0.295])
    pool = {seed: [Accuracies(clean, probe) for clean in BUDGETS] for seed, probe in enumerate(probes.tolist())}
    scores = np.array([0.33, 0.34, 0.325, 0.35])
    found = accuracy_matched([Accuracies(0.7, score) for score in scores.tolist()], pool)
    expected = welch(scores, probes)
    assert found.difference.value == pytest.approx(expected.difference, abs=1e-4)
    assert (found.difference.low, found.difference.high) == pytest.approx((expected.low, expected.high), abs=3e-4)
    assert found.p == pytest.approx(expected.p, rel=0.05)


def test_the_runs_needed_are_welchs_where_the_line_is_flat():
    probes = np.array([0.30, 0.31, 0.29, 0.315, 0.295])
    pool = {seed: [Accuracies(clean, probe) for clean in BUDGETS] for seed, probe in enumerate(probes.tolist())}
    scores = np.array([0.305, 0.31, 0.30, 0.312])
    found = accuracy_matched([Accuracies(0.7, score) for score in scores.tolist()], pool)
    assert found.runs_needed == pytest.approx(runs_needed(found.difference.value, scores.var(ddof=1), probes.var(ddof=1)), rel=0.02)
    assert found.runs_needed > 30  # at such a number 2 % tell one run from another


@pytest.mark.parametrize("n_runs", [2, 3, 5])
def test_the_interval_covers_the_truth(n_runs):
    generator = np.random.default_rng(n_runs)
    covered = readable = 0
    for _ in range(400):
        found = accuracy_matched(*draw(generator, n_runs, n_runs)).difference
        if found.value is not None:
            readable += 1
            covered += found.low <= 0 <= found.high
    assert readable > 380
    # 4,000 studies gave 97.5, 96.4 and 95.3 %; 400 have a standard error of 1.1 %.
    assert 0.92 <= covered / readable <= 0.995


def test_networks_of_one_seed_are_not_taken_for_independent_ones():
    # Seeds differ and their budgets do not: a line through 20 networks is as well known as the mean of 5, not of 20.
    generator = np.random.default_rng(4)
    pool = {seed: [on_line(b, u) for b in BUDGETS] for seed, u in enumerate(generator.normal(0, 0.2, 5))}
    found = accuracy_matched([on_line(0.7, u) for u in (-0.001, 0.001)], pool)
    seeds = np.array([expit(-0.8 + 1.2 * logit(0.7) + logit(n[0].probe) - logit(on_line(0.6).probe)) for n in pool.values()])
    # t with nearly 4 degrees of freedom, in shares instead of logits: near enough to tell from half the width.
    width = 2 * t.ppf(0.975, 4) * seeds.std(ddof=1) / np.sqrt(5)
    assert found.difference.high - found.difference.low == pytest.approx(width, rel=0.05)


STUDENTS = [on_line(0.70), on_line(0.71, 0.1)]
POOL = {seed: [on_line(b, 0.1 * seed) for b in BUDGETS] for seed in (0, 1, 2)}


@pytest.mark.parametrize(
    ("students", "pool", "words"),
    [
        (STUDENTS[:1], POOL, "1 student run: the spread between runs takes at least 2"),
        ([], POOL, "0 student runs"),
        (STUDENTS, {0: POOL[0]}, "1 seed of independents"),
        (STUDENTS, {}, "0 independents"),
        (STUDENTS, {0: POOL[0][:2], 1: POOL[1][:1]}, "a line through 3 independents, all budgets counted, tells nothing: at least 4"),
        (STUDENTS, {s: [on_line(0.7, s)] * 4 for s in (0, 1)}, "all 8 independents have a clean accuracy of 70.0 %"),
        ([on_line(0.80), on_line(0.78)], POOL, "mean clean accuracy, 79.0 %, lies outside the independents' 60.0 to 74.0 %"),
        ([on_line(0.5), on_line(0.51)], POOL, "50.5 %, lies outside"),
        (STUDENTS, {**POOL, 3: [Accuracies(0.7, 0.0)]}, "has no logit"),
        ([Accuracies(1.0, 0.5), *STUDENTS], POOL, "has no logit"),
        (STUDENTS, {0: POOL[0], 1: POOL[1][:2]}, "without seed 0 the independents are 2 networks"),
        (STUDENTS, {0: POOL[0], 1: [on_line(0.7), on_line(0.7), on_line(0.7)]}, "without seed 0 the independents are 3 networks"),
        ([on_line(0.7)] * 2, {s: [on_line(b) for b in BUDGETS] for s in (0, 1)}, "nothing to judge by"),
    ],
)
def test_refuses_with_a_sentence_what_it_cannot_judge(students, pool, words):
    found = accuracy_matched(students, pool)
    assert found.difference.status == "not_measurable"
    assert words in found.difference.reason
    assert (found.difference.value, found.p, found.minimum_detectable, found.runs_needed) == (None,) * 4


def test_a_student_that_is_never_right_on_the_probe_can_be_read():
    found = accuracy_matched([Accuracies(0.70, 0.0), Accuracies(0.71, 0.0)], POOL)
    assert found.difference.high < 0
