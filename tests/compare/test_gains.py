"""Images right in teacher and student and wrong in an independent: counted by hand, and beside what independents do in their place."""

from dataclasses import replace

import numpy as np
import pytest

from crossdistill.compare import ObservedRun, Pair, gain_table
from crossdistill.compare.gains import UNTAUGHT, trios
from crossdistill.core.records import RunRecord
from crossdistill.core.types import Observations

PAIR = Pair(0, "vit", "cnn", ("kd",))
LABELS = np.zeros(10, int)
MANY = np.arange(1000) % 10


def record(arm, seed=0, *, student="cnn", teacher=None, teacher_run=None):
    return RunRecord(
        run=f"{arm}-{student}-{seed}", label=arm, arm=arm, method="kd" if arm.startswith("kd") else None, teacher=teacher,
        teacher_run=teacher_run, student=student, model="small/resnet8", family="cnn", readout="class", seed=seed, parameters=1,
        training={}, history=[], estimates={}, timing={}, software={}, hardware={},
    )  # fmt: skip


def seen(decisions, labels, *, index=None, split="test"):
    logits = np.zeros((len(decisions), 10), np.float32)
    logits[np.arange(len(decisions)), decisions] = 5
    index = np.arange(len(decisions)) if index is None else np.array(index)
    return Observations(logits, np.asarray(labels), index, split=split)


def run(arm, decisions, seed=0, *, control=None, probe=None, **about):
    observed = {("clean", "", 0): seen(decisions, LABELS[: len(decisions)])}
    for (level, draw), given in (probe or {}).items():
        observed["scramble", level, draw] = seen(given, LABELS[: len(given)])
    made = record(arm, seed, **about)
    return ObservedRun(made.model_copy(update={"control": control}), observed)


def right(pattern):
    """Decisions from a text: "+" is right, "-" wrong."""
    return [0 if mark == "+" else 1 for mark in pattern]


def kd(pattern, seed=0, **about):
    return run("kd", right(pattern), seed, teacher="vit", teacher_run="teacher-vit-0", **about)


def rows(runs, **wanted):
    found = gain_table(runs, [PAIR])
    return [row for row in found if all(getattr(row, name) == value for name, value in wanted.items())]


TEACHER = run("teacher", right("++++--++--"), student="vit")
INDEPENDENT = run("independent", right("----++++--"))


def test_shares_and_expectations_are_those_of_the_formula():
    student = kd("+++---+---")
    runs = [TEACHER, INDEPENDENT, student, run("second_independent", right("+---+-++--"))]
    (gained,) = rows(runs, direction="gained", arm="kd")
    # Teacher right, independent wrong: images 0 to 3, of which the student has 0, 1, 2. The independent errs on 0-3, 8, 9: there the
    # student is right on 3 of 6, the teacher on 4, and the second independent on 1 with the teacher and on none without it.
    assert (gained.arm, gained.count, gained.of, gained.share) == ("kd", 3, 4, 0.75)
    assert gained.expected == pytest.approx(by_odds(1.5 * 2.5 / (0.5 * 3.5), 3 / 6, 4 / 6))
    assert (gained.n_images, gained.n_runs) == (10, 1)
    assert (gained.low, gained.high) == pytest.approx((0.3006, 0.9544), abs=1e-3)  # Wilson, 3 of 4
    (lost,) = rows(runs, direction="lost", arm="kd")
    # Teacher wrong, independent right: 4 and 5, both wrong in the student. Of the independent's right 4 to 7 the student misses 3, the
    # teacher 2, and the second independent the 5 with it.
    assert (lost.count, lost.of, lost.share) == (2, 2, 1.0)
    assert lost.expected == pytest.approx(by_odds(1.5 * 2.5 / (0.5 * 1.5), 3 / 4, 2 / 4))


def by_odds(ratio, mine, teachers):
    """The share of `teachers` at which both are, found by halving, so that the four cells have this odds ratio."""
    low, high = max(0.0, mine + teachers - 1), min(mine, teachers)
    for _ in range(60):
        both = (low + high) / 2
        below = both * (1 - mine - teachers + both) < ratio * (mine - both) * (teachers - both)
        low, high = (both, high) if below else (low, both)
    return both / teachers


def test_without_an_untaught_network_in_the_students_place_nothing_is_expected():
    assert {row.expected for row in rows([TEACHER, INDEPENDENT, kd("+++---+---")])} == {None}


def test_where_no_image_could_tell_there_is_no_share():
    (gained,) = rows([TEACHER, run("independent", right("++++++++++")), kd("++++------")], direction="gained")
    assert (gained.of, gained.count, gained.share, gained.low, gained.high, gained.expected) == (0, 0, None, None, None, None)


def test_a_student_is_read_beside_the_independent_of_another_seed_and_its_own_seeds_stands_in_its_place():
    runs = [TEACHER, *(run("independent", right(p), seed) for seed, p in enumerate(("----++++--", "++++------"))), kd("++--------", 0)]
    found = trios(runs, [PAIR])[0]
    assert [(trio.arm, trio.student, trio.independent) for trio in found] == [
        ("kd", "kd-cnn-0", "independent-cnn-1"),
        ("independent", "independent-cnn-0", "independent-cnn-1"),
    ]


def test_second_independents_and_shuffled_teachers_stand_beside_the_students_and_other_controls_do_not():
    kept = run("kd+shuffled_teacher", right("+---------"), control="shuffled_teacher", teacher="vit", teacher_run="teacher-vit-0")
    twin = run("kd+twin", right("+---------"), control="twin", teacher="vit", teacher_run="teacher-vit-0")
    second = run("second_independent", right("++--------"))
    found = rows([TEACHER, INDEPENDENT, kd("+++-------"), kept, twin, second], direction="gained")
    assert {row.arm: row.share for row in found} == {"kd": 0.75, "kd+shuffled_teacher": 0.25, "second_independent": 0.5}


def test_runs_and_draws_are_averaged_and_an_image_is_one_cluster():
    def probed(pattern):
        return {("grid=2", 0): right(pattern), ("grid=2", 1): right(pattern), ("grid=4", 0): right(pattern), ("grid=4", 1): right(pattern)}

    teacher = replace(TEACHER, observations=run("teacher", right("++++--++--"), probe=probed("++++------")).observations)
    alone = [run("independent", right("----++++--"), seed, probe=probed("----------")) for seed in (0, 1)]
    taught = [kd("++--------", seed, probe=probed(p)) for seed, p in enumerate(("++--------", "+---------"))]
    (row,) = rows([teacher, *alone, *taught], arm="kd", direction="gained", probe="scramble", level="auc")
    assert (row.n_runs, row.of, row.count, row.share) == (2, 4.0, 1.5, 0.375)
    (level,) = rows([teacher, *alone, *taught], arm="kd", direction="gained", probe="scramble", level="grid=4")
    # Eight answers to each image are no more evidence than the two runs' that differ: the interval does not shrink with copies.
    assert (row.low, row.high) == pytest.approx((level.low, level.high), abs=0.02)


def test_only_images_that_all_three_saw_are_counted():
    student = kd("+++---+---")
    partly = replace(student, observations={("clean", "", 0): seen(right("++-+"), LABELS[:4], index=[0, 1, 2, 8])})
    (gained,) = rows([TEACHER, INDEPENDENT, partly], direction="gained")
    assert (gained.n_images, gained.of, gained.count) == (4, 3, 2)


def test_sets_of_their_own_split_and_without_labels_are_left_out():
    conflict = {("conflict", "", 0): seen(right("++--"), LABELS[:4], split="conflict")}
    runs = [replace(run, observations={**run.observations, **conflict}) for run in (TEACHER, INDEPENDENT, kd("+++---+---"))]
    assert {row.probe for row in gain_table(runs, [PAIR])} == {"clean"}


@pytest.mark.parametrize(("teachers", "students"), [(0.5, 0.5), (1.5, 0.5), (1.5, 1.2), (0.0, 1.2)], ids=str)
@pytest.mark.parametrize("hardness", [0, 2])
def test_students_that_take_nothing_over_get_what_is_expected_however_good_they_are_and_hard_the_images(hardness, teachers, students):
    generator = np.random.default_rng(5)
    apart = []
    for _ in range(6):
        hard = hardness * generator.normal(size=len(MANY))
        found = chance_rows(hard, teachers, students, generator)
        apart += [(found["kd", way].share - found["kd", way].expected) for way in ("gained", "lost")]
        assert {found[arm, way].expected for arm in UNTAUGHT for way in ("gained", "lost")} == {None}  # they are the measure
    assert np.mean(apart[::2]) == pytest.approx(0, abs=0.02)
    assert np.mean(apart[1::2]) == pytest.approx(0, abs=0.03)


def test_a_student_that_follows_gets_more_than_expected_of_both():
    generator = np.random.default_rng(6)
    found = chance_rows(2 * generator.normal(size=len(MANY)), 0.5, 0.5, generator, follows=0.3)
    for way in ("gained", "lost"):
        assert found["kd", way].low > found["kd", way].expected + 0.02


def chance_rows(hard, teachers, students, generator, follows=0.0):
    """{(arm, direction): row} of networks whose answers hang on what is hard for all, and of students that copy a part."""
    teacher = solved(hard, teachers, generator)
    runs = [run_of("teacher", teacher, student="vit")]
    for seed in range(3):
        runs += [run_of(arm, solved(hard, 0.5, generator), seed) for arm in UNTAUGHT]
        copied = np.where(generator.random(len(MANY)) < follows, teacher, solved(hard, students, generator))
        runs.append(run_of("kd", copied, seed, teacher="vit", teacher_run="teacher-vit-0"))
    return {(row.arm, row.direction): row for row in gain_table(runs, [PAIR])}


def solved(hard, skill, generator):
    return np.where(generator.random(len(MANY)) < 1 / (1 + np.exp(-skill - hard)), MANY, (MANY + 1) % 10)


def run_of(arm, decisions, seed=0, **about):
    return ObservedRun(record(arm, seed, **about), {("clean", "", 0): seen(decisions, MANY)})
