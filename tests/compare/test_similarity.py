"""CKA in a study: who is compared with whom, in which layers, and that each row is what `cka` gives."""

import numpy as np
import pytest

from crossdistill.compare import ObservedRun, Pair, similarity
from crossdistill.compare.similarity import similarity_table
from crossdistill.metrics.cka import cka, kernels_of

N = 40
PAIRS = [Pair(0, "vit", "cnn", ("kd", "crd"), control_teacher="big cnn")]


def gaussian(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def cnn_features(seed, n=N):
    vectors = {"pooled": gaussian(n, 6, seed=seed), "stage1": gaussian(n, 5, seed=[seed, 1])}
    return {**vectors, "stage1_grid": gaussian(n, 5, 2, 2, seed=[seed, 2])}


def vit_features(seed, n=N):
    return {**cnn_features(seed, n), "stage1_class_token": gaussian(n, 7, seed=[seed, 3])}


@pytest.fixture
def run(made):
    def build(arm, seed=0, features=None, **about):
        return ObservedRun(made.record(arm, seed, **about), {}, None, {} if features is None else {"features": features})

    return build


def compared(rows):
    return list(dict.fromkeys((row.a, row.b) for row in rows))


def test_each_row_is_the_cka_of_two_layers_in_the_same_form(run):
    student, teacher = vit_features(1), vit_features(2)
    student["stage1_grid"] = student["stage1_grid"] + teacher["stage1_grid"]
    rows = similarity_table([run("teacher", student="vit", features=teacher),
                             run("kd", features=student, teacher="vit", teacher_run="teacher-vit-0")], PAIRS)  # fmt: skip
    vectors = ["pooled", "stage1"]
    same_form = [(a, b) for a in vectors for b in vectors] + [("stage1_grid",) * 2, ("stage1_class_token",) * 2]
    assert sorted((row.layer_a, row.layer_b) for row in rows) == sorted(same_form)
    for row in rows:
        expected = cka(student[row.layer_a], teacher[row.layer_b])
        assert (row.a, row.b, row.n, row.status, row.reason) == ("kd-cnn-0", "teacher-vit-0", N, "ok", None)
        assert (row.value, row.low, row.high) == pytest.approx((expected.value, expected.low, expected.high), abs=1e-12)


def test_a_class_token_is_compared_with_class_tokens_only(run):
    rows = similarity_table([run("teacher", student="vit", features=vit_features(1)),
                             run("kd", features=cnn_features(2), teacher="vit", teacher_run="teacher-vit-0")], PAIRS)  # fmt: skip
    assert rows
    assert not [row for row in rows if "class_token" in row.layer_a + row.layer_b]


def test_students_teachers_and_independents_are_compared_two_and_two_each_once(run):
    taught = dict(teacher="vit", teacher_run="teacher-vit-0")
    runs = [
        run("teacher", student="vit", features=vit_features(0)),
        run("earlier_teacher", student="vit", features=vit_features(1)),
        run("independent", features=cnn_features(2)),
        run("independent", 1, features=cnn_features(3)),  # of another seed
        run("second_independent", features=cnn_features(4)),
        run("independent_40", features=cnn_features(5)),
        run("kd", features=cnn_features(6), **taught),
        run("crd", features=cnn_features(7), **taught),  # shares teacher and independent with kd
        run("kd+shuffled_teacher", features=cnn_features(8), teacher="vit", teacher_run="earlier_teacher-vit-0"),
        run("teacher", student="big cnn", features=cnn_features(9)),
        run("kd+control_teacher", features=cnn_features(10), teacher="big cnn", teacher_run="teacher-big cnn-0"),
        run("kd", features=cnn_features(11), student="other", **taught),  # of no pair
    ]
    expected = {
        ("kd-cnn-0", "teacher-vit-0"), ("kd-cnn-0", "independent-cnn-0"), ("independent-cnn-0", "teacher-vit-0"),
        ("crd-cnn-0", "teacher-vit-0"), ("crd-cnn-0", "independent-cnn-0"),
        ("kd+shuffled_teacher-cnn-0", "earlier_teacher-vit-0"), ("kd+shuffled_teacher-cnn-0", "independent-cnn-0"),
        ("independent-cnn-0", "earlier_teacher-vit-0"),
        ("kd+control_teacher-cnn-0", "teacher-big cnn-0"), ("kd+control_teacher-cnn-0", "independent-cnn-0"),
        ("independent-cnn-0", "teacher-big cnn-0"),
    }  # fmt: skip
    rows = similarity_table(runs, PAIRS)
    assert set(compared(rows)) == expected
    places = [(row.a, row.b, row.layer_a, row.layer_b) for row in rows]
    assert len(places) == len(set(places))
    assert similarity_table(runs, [*PAIRS, Pair(1, "vit", "cnn", ("dkd",))]) == rows  # the same students again


def test_kernels_of_a_run_are_made_once_though_it_stands_in_many_comparisons(run, monkeypatch):
    made = []
    monkeypatch.setattr(similarity, "kernels_of", lambda features, name: made.append(name) or kernels_of(features, name))
    runs = [run("teacher", student="vit", features=cnn_features(0)), run("independent", features=cnn_features(1))]
    runs += [run(arm, features=cnn_features(2), teacher="vit", teacher_run="teacher-vit-0") for arm in ("kd", "crd", "kd+twin")]
    assert len(compared(similarity_table(runs, PAIRS))) == 7
    assert len(made) == 5 * 3


def test_a_student_that_is_its_teacher_rotated_scores_one_and_an_unrelated_one_nothing(run):
    teacher = {"pooled": gaussian(300, 8, seed=0)}
    rotation, _ = np.linalg.qr(gaussian(8, 8, seed=1).astype(np.float64))
    runs = [
        run("teacher", student="vit", features=teacher),
        run("independent", features={"pooled": gaussian(300, 8, seed=2)}),
        run("kd", features={"pooled": (3 * teacher["pooled"] @ rotation).astype(np.float32)}, teacher="vit", teacher_run="teacher-vit-0"),
    ]
    found = {(row.a, row.b): row for row in similarity_table(runs, PAIRS)}
    assert found["kd-cnn-0", "teacher-vit-0"].value == pytest.approx(1, abs=1e-6)
    unrelated = found["independent-cnn-0", "teacher-vit-0"]
    assert unrelated.low < 0 < unrelated.high
    assert abs(unrelated.value) < 0.03


def test_runs_without_features_have_no_row_and_refusals_have_one_with_the_reason(run):
    taught = dict(teacher="vit", teacher_run="teacher-vit-0")
    teacher = run("teacher", student="vit", features=cnn_features(0))
    assert similarity_table([teacher, run("kd", **taught)], PAIRS) == []
    assert similarity_table([run("kd", features=cnn_features(1), **taught)], PAIRS) == []  # its teacher is not there
    rows = similarity_table([teacher, run("kd", features="it has no maps", **taught)], PAIRS)
    assert {(row.layer_a, row.value, row.status, row.reason) for row in rows} == {("pooled", None, "not_measurable", "it has no maps")}


def test_what_means_nothing_is_not_measurable(run):
    taught = dict(teacher="vit", teacher_run="teacher-vit-0")
    student = {**cnn_features(1), "pooled": np.ones((N, 3), np.float32)}
    rows = similarity_table([run("teacher", student="vit", features=cnn_features(0)), run("kd", features=student, **taught)], PAIRS)
    dead = [row for row in rows if row.layer_a == "pooled"]
    assert {row.status for row in dead} == {"not_measurable"}
    assert {row.reason for row in dead} == {"the features at pooled are alike for all images, or for all but a few"}
    assert all(row.status == "ok" for row in rows if row not in dead)
    few = [run("teacher", student="vit", features=cnn_features(0, 3)), run("kd", features=cnn_features(1, 3), **taught)]
    assert {row.reason for row in similarity_table(few, PAIRS)} == {"CKA needs at least 4 images, and 3 were measured"}
