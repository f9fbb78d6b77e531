"""Simulated studies as scenarios: what is planted, what the code that judges real studies makes of it, and whether that is the truth."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from scipy.special import expit, logit

from crossdistill.compare import Contrast, Pair, inheritance_table
from crossdistill.compare.transfer import transfer_table
from crossdistill.core.records import Against, EstimateModel, InheritanceRow, ResultRow
from crossdistill.core.types import Estimate
from crossdistill.metrics.inheritance import inheritance
from crossdistill.metrics.side_with_teacher import FEWEST_IMAGES
from simulated_arms import OF_PROBE, PROBE, RUN, TEACHER_RUN, World
from simulated_studies import CLEAN, LEVEL, STUDENT, TEACHER, Network, accuracy_rows, network, row

PASSES = 0.4  # what a student that inherits takes over of its teacher's distance from the independents
ALPHA = 0.05
RESAMPLES = 500  # of the bootstraps that stand beside Welch's interval for comparison
VERDICTS = ("inherited", "moved_away", "equivalent", "unresolved", "nothing_to_inherit")

Outcome = tuple[str, Mapping[str, float | bool]]
Scenario = Callable[[np.random.Generator, int, int], Iterator[Outcome]]


def contrasts(networks: Sequence[Network], against: Against, *, methods: Sequence[str] = ("kd",), **of_pair: Any) -> list[InheritanceRow]:
    """The inheritance table; the accuracy of each method on each probe is declared primary, against one control."""
    probes = dict.fromkeys(probe for one in networks for probe in one.accuracies if probe != CLEAN)
    declared = [Contrast(0, method, probe, against) for method in methods for probe in probes]
    pair = Pair(0, TEACHER, STUDENT, tuple(methods), **of_pair)
    return inheritance_table(accuracy_rows(networks), [one.observed for one in networks], [pair], declared)


def contrast(rows: Sequence[InheritanceRow], against: Against, metric: str = "accuracy") -> InheritanceRow:
    """The row of one contrast on the only probe."""
    return next(row for row in rows if (row.contrast, row.probe, row.metric) == (against, PROBE, metric))


def outcome(row: InheritanceRow, truth: tuple[float, float]) -> dict[str, float | bool]:
    """What became of one contrast; where it was not measurable nothing but that, which leaves the study out of the other shares."""
    if row.difference is None or row.low is None or row.high is None:
        return {"measurable": False}
    return {
        "measurable": True,
        **interval(row.low, row.high, truth),
        "found": row.p_raw is not None and row.p_raw <= ALPHA,
        **{verdict: row.verdict == verdict for verdict in VERDICTS},
    }


def interval(low: float, high: float, truth: tuple[float, float]) -> dict[str, float | bool]:
    return {
        "covers": low <= truth[0] <= high,
        "covers_all_images": low <= truth[1] <= high,
        "width_points": 100 * (high - low),
        "truth_points": 100 * truth[0],
    }


def against_independents(
    name: str, random: np.random.Generator, runs: int, n_images: int, *, gap: float, passes: float = 0.0, spread: float = RUN,
    wider: float = 1.0, heavy: bool = False, beside: bool = False,
) -> Iterator[Outcome]:  # fmt: skip
    """Students against independents; `wider`: how many times as much students vary; `beside`: 5 runs are also judged by two bootstraps."""
    world = World(random, runs, n_images, spread=spread, heavy=heavy)
    teachers, independents = world.teachers(gap), world.independents()
    students = world.students("kd", teachers, passes, spread=wider * spread)
    spreads = math.hypot(wider * spread, passes * TEACHER_RUN), spread
    truth = world.truth(PROBE, (OF_PROBE + passes * gap, spreads[0]), (OF_PROBE, spreads[1])) if passes or wider > 1 else (0.0, 0.0)
    yield name, outcome(contrast(contrasts([*teachers, *independents, *students], "independent"), "independent"), truth)
    if beside and runs == 5:
        right = [np.stack([one.decisions(PROBE) == world.images.labels for one in arm]) for arm in (students, independents)]
        yield "for comparison: percentile bootstrap over runs", interval(*bootstrap_of_runs(random, *right), truth)
        yield "for comparison: hierarchical bootstrap, runs then images", interval(*bootstrap_of_both(random, *right), truth)


def bootstrap_of_runs(random: np.random.Generator, students: np.ndarray, independents: np.ndarray) -> tuple[float, float]:
    """The percentile interval with the runs of each arm, [runs, images], resampled."""
    resampled = [arm.mean(axis=1)[random.integers(0, len(arm), (RESAMPLES, len(arm)))].mean(axis=1) for arm in (students, independents)]
    low, high = np.percentile(resampled[0] - resampled[1], [2.5, 97.5])
    return float(low), float(high)


def bootstrap_of_both(random: np.random.Generator, students: np.ndarray, independents: np.ndarray) -> tuple[float, float]:
    """The percentile interval with the runs of each arm resampled, and the images jointly for all networks."""
    # Counts of resampled images are nearly Poisson; the weighted mean divides by what was drawn.
    weights = random.poisson(1.0, (RESAMPLES, students.shape[1])).astype(np.float32)
    weights /= weights.sum(axis=1, keepdims=True)
    means = []
    for arm in (students, independents):
        chosen = random.integers(0, len(arm), (RESAMPLES, len(arm)))
        means.append(np.take_along_axis(weights @ arm.T.astype(np.float32), chosen, axis=1).mean(axis=1))
    low, high = np.percentile(means[0] - means[1], [2.5, 97.5])
    return float(low), float(high)


def family(random: np.random.Generator, runs: int, n_images: int) -> Iterator[Outcome]:
    """Eight declared contrasts, two methods on four probes against the same independents, in none of which anything is inherited."""
    probes, methods = ("first", "second", "third", "fourth"), ("kd", "dkd")
    world = World(random, runs, n_images, probes=probes)
    teachers = world.teachers(0.10)
    networks = [*teachers, *world.independents(), *(one for method in methods for one in world.students(method, teachers, 0.0))]
    table = contrasts(networks, "independent", methods=methods)
    rows = [row for row in table if row.role == "primary"]
    assert len(rows) == len(methods) * len(probes)
    verdicts = [row.verdict for row in rows]
    counted = {
        "any_p_holm_at_most_0.05": any(row.p_holm is not None and row.p_holm <= ALPHA for row in rows),
        "any_p_raw_at_most_0.05": any(row.p_raw is not None and row.p_raw <= ALPHA for row in rows),
        "any_inherited_or_moved_away": "inherited" in verdicts or "moved_away" in verdicts,
    }
    yield "family of eight", counted


def against_control_teachers(name: str, random: np.random.Generator, runs: int, n_images: int, *, gap: float) -> Iterator[Outcome]:
    """Matched students against those of control teachers, whose validation accuracy is 1.5 points lower; 1 point of it is worth 0.8."""
    apart, worth, validation, run_validation = 0.015, 0.8, 0.845, 0.007
    world = World(random, runs, n_images)
    sides: list[Network] = []
    for arm, network_name, further, of_gap in (
        ("kd+matched_teacher", TEACHER, apart, gap),
        ("kd+control_teacher", STUDENT, 0.0, 0.0),
    ):
        of_teachers = [validation + further + run_validation * drawn for drawn in random.standard_normal(runs)]
        teachers = [
            with_validation(one, accuracy) for one, accuracy in zip(world.teachers(of_gap, student=network_name), of_teachers, strict=True)
        ]
        better = [worth * (accuracy - validation) for accuracy in of_teachers]
        sides += [*teachers, *world.students(arm, teachers, PASSES, better=better)]
    networks = [*sides, *world.independents(), *world.students("kd", sides[:runs], PASSES)]
    table = contrasts(networks, "control_teacher", control_teacher=STUDENT)
    spread = math.hypot(RUN, PASSES * TEACHER_RUN)
    total = math.hypot(spread, worth * run_validation)
    moved = OF_PROBE + PASSES * gap
    truths: dict[Against, tuple[float, float]] = {
        "control_teacher": world.truth(PROBE, (moved + worth * apart, total), (OF_PROBE, total)),
        # At one validation accuracy, half-way between the two.
        "control_teacher_adjusted": world.truth(PROBE, (moved + worth * apart / 2, spread), (OF_PROBE + worth * apart / 2, spread)),
    }
    for against, truth in truths.items():
        yield f"{against}, {name}", outcome(contrast(table, against), truth)


def with_validation(one: Network, accuracy: float) -> Network:
    """The network with this validation accuracy in its record."""
    estimates = {"validation_accuracy": EstimateModel.of(Estimate(accuracy))}
    return replace(one, observed=replace(one.observed, record=one.observed.record.model_copy(update={"estimates": estimates})))


def at_matched_accuracy(name: str, random: np.random.Generator, runs: int, n_images: int, *, beyond: float) -> Iterator[Outcome]:
    """Students of another clean accuracy than the independents of any one budget, on their line or `beyond` above it.

    Independents of the four budgets stand at 68, 73, 76 and 78 % of clean images, students at 75 %; the logit of probe accuracy
    rises by 1.3 for each of clean accuracy. Run effects of one seed are correlated by one half between budgets.
    """
    world = World(random, runs, n_images)
    budgets = {"independent_40": 0.68, "independent_60": 0.73, "independent_80": 0.76, "independent": 0.78}
    of_seeds = [world.effects(RUN) for _ in range(runs)]

    def line(clean: float) -> float:
        return float(expit(logit(OF_PROBE) + 1.3 * (logit(clean) - logit(0.78))))

    def made(arm: str, clean_mean: float, above: float, *, shared: bool, **facts: Any) -> list[Network]:
        found = []
        for seed in range(runs):
            own, of_seed = world.effects(RUN), of_seeds[seed]
            effects = {key: math.sqrt(0.5) * (own[key] + of_seed[key]) if shared else own[key] for key in own}
            clean = clean_mean + effects[CLEAN]
            found.append(network(
                world.images, random, arm, seed, {CLEAN: clean, PROBE: line(clean) + above + effects[PROBE]},
                **{key: values[seed] for key, values in facts.items()},
            ))  # fmt: skip
        return found

    teachers = world.teachers(0.10)
    pool = [one for arm, clean in budgets.items() for one in made(arm, clean, 0.0, shared=True)]
    students = made("kd", 0.75, beyond, shared=False, teacher=teachers)
    mean = line(0.75)
    truth = world.truth(PROBE, (mean + beyond, RUN), (mean, RUN))
    yield name, outcome(contrast(contrasts([*teachers, *pool, *students], "accuracy_matched"), "accuracy_matched"), truth)


def sides_and_tau(name: str, random: np.random.Generator, runs: int, n_images: int, *, gap: float, passes: float) -> Iterator[Outcome]:
    """Side-with-teacher rates above second independents', and the ratio tau, of students that take over `passes`."""
    world = World(random, runs, n_images)
    teachers, independents, seconds = world.teachers(gap), world.independents(), world.independents("second_independent")
    students = world.students("kd", teachers, passes)
    networks = [*teachers, *independents, *seconds, *students]
    results = accuracy_rows(networks)
    if passes == 0.0:
        others = [*independents[1:], *independents[:1]]  # as a study does: students take sides beside the independent of another seed
        for four in zip(students, teachers, others, seconds, strict=True):
            results += side_rows(*four, world.images.labels)
        yield from sides(results, networks)
    taus = transfer_table(results, [one.observed for one in networks], [Pair(0, TEACHER, STUDENT, ("kd",))])
    tau = next(one for one in taus if one.probe == PROBE)
    if tau.tau is None or tau.low is None or tau.high is None:
        yield f"tau, {name}", {"measurable": False}
        return
    spread = math.hypot(RUN, passes * TEACHER_RUN)
    taken, _ = world.truth(PROBE, (OF_PROBE + passes * gap, spread), (OF_PROBE, RUN))
    whole, _ = world.truth(PROBE, (OF_PROBE + gap, TEACHER_RUN), (OF_PROBE, RUN))
    yield (
        f"tau, {name}",
        {
            "measurable": True,
            "covers": tau.low <= taken / whole <= tau.high,
            "covers_all_images": tau.low <= passes <= tau.high,
            "width": tau.high - tau.low,
            "truth": taken / whole,
        },
    )


def sides(results: Sequence[ResultRow], networks: Sequence[Network]) -> Iterator[Outcome]:
    """The contrast against second independents where nothing is inherited: the true excess is 0."""
    declared = [Contrast(0, "kd", PROBE, "second_independent")]
    table = inheritance_table(results, [one.observed for one in networks], [Pair(0, TEACHER, STUDENT, ("kd",))], declared)
    for metric, where in {"side_with_teacher": "all images", "side_with_teacher_wrong": "teacher and independent both wrong"}.items():
        yield f"second_independent, no effect, {where}", outcome(contrast(table, "second_independent", metric), (0.0, 0.0))


def side_rows(student: Network, teacher: Network, independent: Network, second: Network, labels: np.ndarray) -> list[ResultRow]:
    """The rows of the side-with-teacher rates that the contrast reads: what `metrics.side_with_teacher` gives, without its intervals."""
    s, t, i, j = (one.decisions(PROBE) for one in (student, teacher, independent, second))
    apart = t != i
    rows = []
    for infix, where in {"": apart, "wrong_": apart & (t != labels) & (i != labels)}.items():
        hits = [(one == t)[where & ((one == t) | (one == i))] for one in (s, j)]
        refused = min(map(len, hits)) < FEWEST_IMAGES
        rates = [float(hit.mean()) if len(hit) else 0.0 for hit in hits]
        for figure, value in {"rate": rates[0], "second_rate": rates[1], "excess": rates[0] - rates[1]}.items():
            estimate = Estimate.not_measurable("too few images") if refused else Estimate(value, value, value, unit="share")
            rows.append(row(student, PROBE, LEVEL, f"side_with_teacher_{infix}{figure}", estimate))
    return rows


def one_checkpoint(random: np.random.Generator, runs: int, n_images: int) -> Iterator[Outcome]:
    """Students of one teacher checkpoint taken for students of as many teachers, beside one teacher run for each student.

    Teachers are no better or worse than independents on the probe, but each is itself, and passes a part of that on: over teachers
    nothing is inherited, and a difference at 5 % is a false alarm.
    """
    for passes in (0.4, 0.65):
        for what, shared in (("all of one checkpoint", True), ("each of its own teacher run", False)):
            world = World(random, runs, n_images)
            teachers = world.teachers(0.0)
            students = world.students("kd", teachers[:1] * runs if shared else teachers, passes)
            figures = [
                np.array([(one.decisions(PROBE) == world.images.labels).mean() for one in arm]) for arm in (students, world.independents())
            ]
            p = inheritance(*figures)["p_value"].value
            yield f"students {what}, {passes} of it taken over", {"found": p is not None and p <= ALPHA}


SCENARIOS: dict[str, Scenario] = {
    key: partial(simulate, key, **settings)
    for simulate, cases in {
        against_independents: {
            "independent, no effect": {"gap": 0.10, "beside": True},
            "independent, 3 points": {"gap": 0.075, "passes": PASSES},
            "independent, 10 points": {"gap": 0.25, "passes": PASSES},
            "independent, 3 points, runs 3 points apart": {"gap": 0.075, "passes": PASSES, "spread": 0.03},
            "independent, 10 points, runs 3 points apart": {"gap": 0.25, "passes": PASSES, "spread": 0.03},
            "independent, no effect, students vary 3 times as much": {"gap": 0.10, "wider": 3.0},
            "independent, no effect, heavy tails": {"gap": 0.10, "heavy": True, "spread": 0.03},
        },
        against_control_teachers: {"4 points": {"gap": 0.10}, "no effect": {"gap": 0.0}},
        at_matched_accuracy: {"accuracy_matched, no effect": {"beyond": 0.0}, "accuracy_matched, 3 points": {"beyond": 0.03}},
        sides_and_tau: {
            "nothing passes, gap 10 points": {"gap": 0.10, "passes": 0.0},
            "true 0.4, gap 10 points": {"gap": 0.10, "passes": PASSES},
            "true 0.4, gap 6 points": {"gap": 0.06, "passes": PASSES},
        },
    }.items()
    for key, settings in cases.items()
} | {"family of eight": family, "one checkpoint": one_checkpoint}

VARIANTS = frozenset(
    key for key in SCENARIOS if any(word in key for word in ("apart", "times as much", "heavy", "matched, 3", "checkpoint"))
)
"""Scenarios beside the main ones: a quarter of the studies is enough for them."""
