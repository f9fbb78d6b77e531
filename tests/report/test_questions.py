"""The three questions: answered from this study's own tables, or said why they cannot be."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossdistill.core import registry
from crossdistill.report.epoch_cost import cost_answer, cost_lines
from crossdistill.report.probe_files import read_probes
from crossdistill.report.sections.cost import cost_table
from crossdistill.report.sections.questions import BIASES, COST_AND_NOISE, PERMUTATION, Answer, contents
from crossdistill.report.study_files import StudyFiles, read_study


@pytest.fixture(scope="module")
def large(large_study_folder: Path) -> StudyFiles:
    return read_study(large_study_folder)


def answers(study: StudyFiles) -> list[Answer]:
    return contents(study)["questions"]


def said(answer: Answer) -> str:
    return " ".join([*answer.sentences, *(text for line in answer.lines for text in line.texts)]).replace("\u00a0", " ")


def test_the_three_questions_stand_there_by_name(large: StudyFiles) -> None:
    assert [answer.question.text for answer in answers(large)] == [
        "Are shape, texture and locality biases transferred?",
        "Does permutation invariance survive distillation?",
        "What do the methods cost, and how do students behave under noise?",
    ]


def test_each_is_answered_with_figures_and_intervals_for_each_pair_and_method(large: StudyFiles) -> None:
    for answer in answers(large):
        assert [(line.pair.index, line.method) for line in answer.lines] == [(0, "kd"), (1, "kd")]
        assert all(" to " in " ".join(line.texts) for line in answer.lines)
    biases, permutation, noise = map(said, answers(large))
    assert biases.startswith("In part. Inherited: ")
    assert "on conflict images" in biases
    assert "scramble" not in biases
    assert "scramble accuracy" in permutation
    assert "superpixel" not in permutation
    assert "localized noise accuracy" in noise


def test_few_runs_leave_a_question_open(study_folder: Path) -> None:
    for answer in answers(read_study(study_folder)):
        assert "Open: 2 runs an arm are too few for a verdict." in said(answer)
        assert "nherited" not in said(answer)


def test_a_study_without_such_a_probe_says_so_and_names_one(large: StudyFiles) -> None:
    kept = [probe for probe in large.probes if probe.name == "superpixel"]
    rows = tuple(row for row in large.inheritance if row.probe in ("clean", "superpixel"))
    bare = replace(
        large, probes=tuple(kept), inheritance=rows, results=tuple(r for r in large.results if r.probe in ("clean", "superpixel"))
    )
    biases, permutation, noise = answers(bare)
    assert "Of shape this study cannot say anything" in said(biases)
    assert said(permutation) == (
        "Of permutation this study cannot say anything: no probe of it is about that. The study file may name “scramble”."
    )
    assert "Of noise this study cannot say anything" in said(noise)


def test_a_failed_gate_is_given_as_the_reason_and_not_as_a_number(large: StudyFiles) -> None:
    none: dict[str, Any] = dict.fromkeys(("difference", "low", "high", "teacher_gap", "gap_low", "gap_high"))
    lost = {**none, "verdict": "not_measurable", "reason": "too little signal: at most 24 %"}
    rows = tuple(row.model_copy(update=lost) if row.probe == "scramble" else row for row in large.inheritance)
    text = said(answers(replace(large, inheritance=rows))[1])
    assert text.startswith("Nothing can be said: none of 4 contrasts could be measured.")
    assert "not measurable: scramble accuracy and answers unchanged (kappa) on scramble images (too little signal: at most 24 %)" in text
    assert "points" not in text


def test_nothing_compared_is_no_answer(large: StudyFiles) -> None:
    empty = answers(replace(large, inheritance=()))
    assert all("This study cannot say yet: nothing has been compared." in said(answer) for answer in empty)


def test_where_the_teacher_keeps_fewer_answers_nothing_can_survive(large: StudyFiles) -> None:
    """Of the second pair the teacher is a CNN, which the scramble harms more than the ViT that learns from it."""
    first, second = answers(large)[1].lines
    assert not any("nothing to survive" in text for text in first.texts)
    assert "nothing to survive: cnn keeps fewer of its answers than vit does without it" in second.texts
    only = tuple(row for row in large.inheritance if row.pair == 1)
    assert said(answers(replace(large, inheritance=only))[1]).startswith("There is nothing to survive: no teacher here keeps more")


def timed(study: StudyFiles, share: float | None = None) -> StudyFiles:
    """Each kd run 1.5 times as slow as its independent, and the ViT's runs slower still."""
    seconds = {("kd", "cnn"): 3.0, ("kd", "vit"): 5.0}
    extra = {} if share is None else {"teacher_share": share}
    records = [
        record.model_copy(update={"timing": {"seconds_per_epoch": seconds.get((record.arm, record.student), 2.0), **extra}})
        for record in study.records
    ]
    return replace(study, records=tuple(records))


def test_cost_is_told_beside_the_independent_of_the_same_seed(large: StudyFiles) -> None:
    study = timed(large)
    assert cost_answer(study) == "An epoch takes 1.50 (kd, vit → cnn) to 2.50 times (kd, cnn → vit) as long as without a teacher."
    (line,) = cost_lines(study, study.pairs[0], "kd")
    assert line == "1.50 times the seconds an epoch without a teacher, 1.50 to 1.50 over 6 runs"
    (shared,) = cost_lines(timed(large, 0.25), study.pairs[0], "kd")
    assert shared.replace("\u00a0", " ").endswith("; 25.0 % of a step's time for the teacher's answers")


def test_methods_that_cost_alike_are_named_where_not_all_have_finished(large: StudyFiles) -> None:
    records = [r.model_copy(update={"timing": {"seconds_per_epoch": 2.0}}) for r in large.records]
    assert (
        cost_answer(replace(large, records=tuple(records))) == "An epoch takes 1.00 times as long as without a teacher with every method."
    )
    some = tuple(r for r in records if (r.arm, r.student) != ("kd", "vit"))
    assert cost_answer(replace(large, records=some)).endswith("without a teacher with kd, vit → cnn.")


def test_the_table_of_costs_and_the_answer_give_one_ratio(large: StudyFiles) -> None:
    """Seconds of 2, 4, ... without and 3, 3, ... with a teacher: the mean of the ratios is not the ratio of the means."""
    spent = {r.run: 3.0 if r.arm == "kd" else 2.0 + 2 * (r.seed % 2) for r in large.records}
    study = replace(large, records=tuple(r.model_copy(update={"timing": {"seconds_per_epoch": spent[r.run]}}) for r in large.records))
    (line,) = cost_lines(study, study.pairs[0], "kd")
    assert line.startswith("1.12 times the seconds an epoch without a teacher, 0.75 to 1.50 over 6 runs")
    (row,) = (row for row in cost_table(study.records).rows if (row[0].text, row[1].text) == ("cnn", "kd"))
    assert row[5].small == "1.12 times the independent"


def test_a_yes_is_no_more_than_what_was_measured(large: StudyFiles) -> None:
    rows = [row for row in large.inheritance if row.pair == 0 and row.probe == "conflict"]
    taken = [row.model_copy(update={"verdict": "inherited"}) for row in rows]
    known = replace(large, inheritance=tuple(taken))
    assert said(answers(known)[0]).startswith("Yes. Inherited: ")
    lost = rows[0].model_copy(update={"metric": "cue_choice_colour", "verdict": "not_measurable", "difference": None, "reason": "too few"})
    assert said(answers(replace(large, inheritance=(*taken, lost)))[0]).startswith("As far as it could be measured, yes. Inherited: ")
    no_probe = replace(known, probes=(), results=tuple(row for row in large.results if row.probe == "conflict"))
    assert said(answers(no_probe)[0]).startswith("As far as it could be measured, yes. Inherited: ")


def test_cost_without_an_independent_is_not_told(large: StudyFiles) -> None:
    alone = replace(large, records=tuple(r for r in large.records if r.arm != "independent"))
    assert list(cost_lines(alone, alone.pairs[0], "kd")) == []
    assert "Of cost this study cannot say anything yet" in cost_answer(alone)


def test_what_a_probe_is_about_comes_from_the_plan_or_else_from_the_probe(study_folder: Path) -> None:
    by_name = {probe.name: probe.about for probe in read_probes(study_folder / "probes", {})}
    assert by_name["scramble"] == {"permutation"}
    stamped = read_probes(study_folder / "probes", {"probes": {"scramble": {"about": ["shape"]}}})
    assert {probe.name: probe.about for probe in stamped}["scramble"] == {"shape"}


def test_every_question_names_probes_that_are_about_it() -> None:
    for question in (BIASES, PERMUTATION, COST_AND_NOISE):
        for word, example in question.about.items():
            assert word in registry.get("probe", example).facts["about"]
