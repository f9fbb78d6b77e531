"""Verdict rows written by hand, and the sentences that readers must get from them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdistill.core.records import InheritanceRow, RunRecord
from crossdistill.report.certainty import runs_needed
from crossdistill.report.conclusion import conclusion, too_few_runs
from crossdistill.report.headline import headline_rows
from crossdistill.report.names import TITLES, quantity, shown_verdict
from crossdistill.report.network_notes import notes
from crossdistill.report.sentences import evidence, verdict_sentences
from crossdistill.report.study_files import read_study


def row(**changes: Any) -> InheritanceRow:
    """A contrast of six runs in which the student gained 4.1 points of the teacher's 12."""
    return InheritanceRow(
        **{
            "pair": 0,
            "teacher": "vit",
            "student": "cnn",
            "method": "kd",
            "contrast": "independent",
            "probe": "scramble",
            "metric": "accuracy",
            "level_or_auc": "auc",
            "role": "secondary",
            "difference": 0.041,
            "low": 0.012,
            "high": 0.07,
            "p_raw": 0.0123,
            "p_holm": None,
            "p_source": "Welch",
            "family_size": 0,
            "minimum_detectable": 0.04,
            "runs_needed": 4,
            "teacher_gap": 0.12,
            "gap_low": 0.08,
            "gap_high": 0.16,
            "fidelity": 0.031,
            "n_runs": 6,
            "n_teachers": 6,
            "verdict": "inherited",
            "reason": "a reason",
            **changes,
        }
    )


def few(**changes: Any) -> InheritanceRow:
    """The same with two runs, which allow no verdict."""
    return row(**{"n_runs": 2, "verdict": "unresolved", **changes})


def only_text(*rows: InheritanceRow, **options: Any) -> str:
    (sentence,) = verdict_sentences(rows, **options)
    return f"{sentence.title}. {sentence.subject}: {sentence.text}".replace("\u00a0", " ").replace("\u2212", "-")


def test_an_inherited_trait_is_told_with_size_interval_gap_and_certainty():
    assert only_text(row()) == (
        "Inherited. Scramble accuracy: +4.1 points (+1.2 to +7.0) against independent students; the teacher itself: +12.0 points "
        "(+8.0 to +16.0). Off zero and towards the teacher (6 runs an arm, p = 0.012, not corrected for the number of contrasts)."
    )


def test_a_declared_contrast_names_the_corrected_p_and_its_family():
    declared = row(role="primary", p_holm=0.0004, family_size=3)
    assert "p < 0.001 after Holm over 3 declared contrasts" in only_text(declared)
    assert verdict_sentences([declared])[0].declared == "declared in advance"


def test_moving_away_is_told_as_such():
    text = only_text(row(verdict="moved_away", difference=-0.041, low=-0.07, high=-0.012))
    assert text.startswith("Moved away. Scramble accuracy: -4.1 points (-7.0 to -1.2)")
    assert "away from the teacher" in text


def test_equivalence_names_its_margin_which_is_never_under_two_points():
    assert "lies within 2.0 points of zero" in only_text(row(verdict="equivalent", minimum_detectable=0.01))
    assert "lies within 4.0 points of zero" in only_text(row(verdict="equivalent", minimum_detectable=0.04))


def test_an_unresolved_difference_says_what_could_have_been_found_and_the_runs_needed():
    text = only_text(few(low=-0.05, high=0.13, minimum_detectable=0.09, runs_needed=7))
    assert "2 runs an arm cannot tell this difference from zero (they would find one of 9.0 points); about 7 would be needed." in text


def test_two_runs_off_zero_are_still_too_few_for_a_verdict():
    assert "Off zero and towards the teacher, but 2 runs an arm are too few for a verdict." in only_text(few())


def test_several_differences_around_zero_share_one_sentence_with_a_line_each():
    rows = [few(probe=probe, low=-0.05, high=0.13) for probe in ("scramble", "superpixel")]
    (sentence,) = verdict_sentences(rows)
    assert sentence.subject == "2 differences not told from zero"
    assert [item.split(" ")[0] for item in sentence.items] == ["Scramble", "Superpixel"]
    assert all("smallest detectable" in item and "about 5 runs needed" in item for item in sentence.items)


def test_nothing_to_inherit_shows_the_gap():
    text = only_text(row(verdict="nothing_to_inherit", teacher_gap=0.004, gap_low=-0.01, gap_high=0.018))
    assert "the teacher stands at +0.4 points (-1.0 to +1.8)" in text
    assert "There is nothing to inherit" in text


def test_figures_that_could_not_be_measured_for_one_reason_share_a_sentence_with_the_reason():
    gate = dict(verdict="not_measurable", difference=None, low=None, high=None, teacher_gap=None, reason="clean accuracy is at chance")
    text = only_text(row(probe="clean", level_or_auc="", **gate), row(**gate))
    assert text.startswith("Not measurable. Clean accuracy and scramble accuracy: Clean accuracy is at chance.")


def test_a_method_that_did_not_act_is_told_with_its_agreement():
    reason = "students agree with their teacher on 60.0 % of clean images and independents on 61.0 %"
    assert reason in only_text(row(verdict="method_did_not_act", reason=reason))


@pytest.mark.parametrize("verdict", TITLES)
def test_every_sentence_names_the_one_checkpoint_it_comes_from(verdict: str):
    rows = [row(verdict=verdict), few(low=-0.1, high=0.2)]
    for sentence in verdict_sentences(rows, one_teacher_checkpoint=True):
        assert "from this teacher checkpoint" in sentence.text
    assert "this teacher checkpoint" not in only_text(row(verdict=verdict))
    assert conclusion(rows, one_teacher_checkpoint=True).startswith("From this teacher checkpoint: ")
    of_one_pair = conclusion([row(), row(teacher="own", n_teachers=1)])
    assert of_one_pair.endswith(" Of own → cnn, all this is from one teacher checkpoint.")


# Also tables that claim what they may not: the page is the last place to stop a bold word.
@given(st.sampled_from(sorted(TITLES)), st.integers(1, 4), st.floats(-1, 1), st.floats(0, 0.5), st.booleans())
def test_fewer_than_five_runs_never_say_inherited(verdict: str, n_runs: int, difference: float, reach: float, one: bool):
    bold = row(verdict=verdict, n_runs=n_runs, difference=difference, low=difference - reach, high=difference + reach)
    assert shown_verdict(bold) not in ("inherited", "moved_away", "equivalent")
    words = [conclusion([bold], one_teacher_checkpoint=one), evidence([bold]), too_few_runs([bold]) or ""]
    words += [f"{s.title} {s.subject} {s.text}" for s in verdict_sentences([bold], one_teacher_checkpoint=one)]
    assert "inherited" not in " ".join(words).lower()


def test_a_declared_arm_that_does_not_exist_takes_no_verdict_from_the_others():
    missing = row(role="primary", contrast="twin", n_runs=0, verdict="not_measurable", reason="no twin run has this figure")
    assert conclusion([row(), missing]).startswith("Inherited: ")
    assert too_few_runs([row(), missing]) is None
    assert too_few_runs([missing]) is None
    assert "With 2 runs an arm" in (too_few_runs([few(), missing]) or "")


def test_too_few_runs_say_what_to_do_and_enough_runs_say_nothing():
    assert "at least 5 runs an arm" in (too_few_runs([few(), row()]) or "")
    assert "seeds: [0, 1, 2, 3, 4]" in (too_few_runs([few()]) or "")
    assert too_few_runs([row()]) is None
    assert too_few_runs([]) is None


def test_runs_needed_is_never_below_what_a_verdict_takes():
    assert runs_needed(few(runs_needed=2)) == "at least 5 are needed"
    assert runs_needed(few(runs_needed=70)) == "about 70 would be needed"
    assert runs_needed(few(runs_needed=123456)) == "more than 1,000 would be needed"
    assert runs_needed(row(runs_needed=None)) == "more runs of the same size may not settle it"


def test_sentences_come_declared_first_then_by_verdict_then_by_size():
    rows = [
        row(probe="a", verdict="equivalent"),
        row(probe="b", verdict="inherited", difference=0.03),
        row(probe="c", verdict="inherited", difference=-0.3),
        row(probe="d", verdict="unresolved", low=-0.1, role="primary"),
    ]
    assert [s.subject[0] for s in verdict_sentences(rows)] == ["D", "C", "B", "A"]


def test_the_conclusion_of_many_runs_names_what_was_inherited_and_counts_the_rest():
    rows = [row(), row(probe="superpixel", verdict="unresolved"), row(probe="clean", level_or_auc="", verdict="nothing_to_inherit")]
    text = conclusion(rows).replace("\u00a0", " ")
    assert (
        text
        == "Inherited: scramble accuracy +4.1 points (vit → cnn, kd). Of the other contrasts: 1 “unresolved” and 1 “nothing to inherit”."
    )


def test_the_conclusion_of_few_runs_counts_what_is_off_zero_and_its_direction():
    against = few(probe="superpixel", difference=-0.2, low=-0.3, high=-0.1)
    text = conclusion([few(), against, few(probe="clean", low=-0.1)]).replace("\u00a0", " ").replace("\u2212", "-")
    assert text.startswith("Of 3 contrasts, 2 are off zero, 1 of them towards the teacher. The largest: superpixel accuracy -20.0 points")


def test_the_conclusion_of_few_runs_speaks_of_those_alone_in_which_something_could_be_seen():
    idle = few(probe="superpixel", verdict="method_did_not_act")  # off zero, and for another reason than its teacher
    text = conclusion([few(low=-0.1), few(probe="clean", low=-0.1), idle]).replace("\u00a0", " ")
    assert text.startswith("None of 2 contrasts can be told from zero. The largest difference is scramble accuracy +4.1 points")
    assert text.endswith(" Of the other contrasts: 1 “method did not act”.")
    assert conclusion([few(low=-0.1), idle]).startswith("The only difference is scramble accuracy")
    assert conclusion([idle]) == "None of 1 contrast shows anything that could have come from the teacher: 1 “method did not act”."
    assert "2 are off zero" not in conclusion([few(), idle])


def test_some_arms_short_of_runs_take_no_verdict_from_the_others():
    rows = [row(), few(method="crd"), few(method="crd", verdict="not_measurable")]
    assert conclusion(rows).startswith("Inherited: scramble accuracy")
    assert too_few_runs(rows) == (
        "In 1 of 2 contrasts (crd of vit → cnn) an arm has too few runs for a verdict of inheritance, the smallest 2 runs: "
        "that takes at least 5 runs an arm. `crossdistill study run` makes the runs that are missing."
    )


def test_nothing_is_towards_a_teacher_whose_side_is_not_known():
    unsure = dict(teacher_gap=0.12, gap_low=-0.05, gap_high=0.29)
    assert "towards the teacher" in conclusion([few()])
    assert "not one of them towards the teacher" in conclusion([few(**unsure)])
    text = only_text(few(**unsure))
    assert "Off zero, but 2 runs" in text
    assert "the teacher, but" not in text


def test_the_headline_takes_averages_over_levels_and_choices_on_sets_of_their_own():
    kept = [
        row(probe="clean", level_or_auc=""),
        row(),
        row(probe="conflict", level_or_auc="", metric="cue_choice_shape"),
    ]
    left = [
        row(level_or_auc="grid=2"),
        row(metric="retention"),
        row(metric="cue_choice_shape"),
        row(probe="conflict", level_or_auc=""),
        row(probe="clean", level_or_auc="", metric="confidence"),
    ]
    assert headline_rows([*left, *kept], ["conflict"]) == kept


def test_a_probe_with_cues_of_its_own_has_its_choices_in_the_headline_beside_its_accuracy():
    rows = [
        row(metric="retention"),
        row(),
        row(metric="shape_bias"),
        row(metric="shape_bias", level_or_auc="grid=2"),
        row(probe="clean", level_or_auc="", metric="shape_bias"),
    ]
    assert headline_rows(rows, ["scramble"]) == rows[1:3]


def test_a_mean_that_includes_failed_levels_says_so_in_its_sentence():
    noted = few(note="the mean includes what failed the signal gate: grid=8")
    (alone,) = verdict_sentences([noted])
    assert alone.text.endswith(" The mean includes what failed the signal gate: grid=8.")
    faint = [noted.model_copy(update={"probe": probe, "low": -0.1}) for probe in ("scramble", "mosaic")]
    (group,) = verdict_sentences(faint)
    assert all("; the mean includes what failed the signal gate: grid=8)" in item for item in group.items)
    lost = [item.model_copy(update={"verdict": "nothing_to_inherit"}) for item in faint]
    (group,) = verdict_sentences(lost)
    assert "Scramble accuracy: the mean includes what failed the signal gate: grid=8." in group.text


def test_a_declared_contrast_is_always_in_the_headline():
    assert (
        headline_rows([row(role="primary", probe="conflict", level_or_auc=""), row(probe="conflict", metric="shape_bias")], ["conflict"])[
            0
        ].role
        == "primary"
    )


def test_quantities_are_named_in_words():
    assert quantity(row(probe="localized_noise")) == "localized noise accuracy"
    assert quantity(row(level_or_auc="grid=4")) == "scramble accuracy at grid=4"
    assert quantity(row(probe="conflict", metric="cue_choice_texture", level_or_auc="")) == "texture choices on conflict images"


def test_agreement_is_told_without_a_double_negative():
    assert "agrees with its teacher 3.1\u00a0points more often" in evidence([row()])
    assert "agrees with its teacher 3.1\u00a0points less often" in evidence([row(fidelity=-0.031)])


def unmeasured(**changes: Any) -> InheritanceRow:
    """A contrast whose control failed its accuracy gate."""
    nothing = dict.fromkeys(("difference", "low", "high", "p_raw", "minimum_detectable", "runs_needed", "teacher_gap"))
    return few(**{**nothing, "verdict": "not_measurable", "reason": "kd+twin: cnn, seed 0: clean accuracy 9.8 %", **changes})


def test_where_nothing_was_measured_the_answer_does_not_speak_of_the_teacher_nor_ask_for_runs():
    rows = [unmeasured(), unmeasured(probe="superpixel")]
    assert conclusion(rows) == "Nothing can be said: none of 2 contrasts could be measured."
    assert too_few_runs(rows) is None
    assert too_few_runs([*rows, few()]) is not None


def test_what_could_not_be_measured_names_its_control_and_leaves_the_name_of_the_run_alone():
    (sentence,) = verdict_sentences([unmeasured(contrast="twin")])
    assert sentence.text == (
        "kd+twin: cnn, seed 0: clean accuracy 9.8 %. Nothing can be said, against its twin, about what came from the teacher."
    )
    (sentence,) = verdict_sentences([unmeasured(contrast="shuffled_teacher", reason="too little signal")])
    assert sentence.text.startswith("Too little signal. Nothing can be said, against students of a shuffled teacher, about")


def test_a_method_that_did_not_act_names_the_control_of_the_sentence():
    (sentence,) = verdict_sentences([row(verdict="method_did_not_act", contrast="control_teacher")])
    assert "Whatever differs against students of a control teacher did not come from the teacher." in sentence.text


def test_how_two_teachers_compare_is_told_once_for_both_arms_and_every_method(study_folder):
    record = read_study(study_folder).records[0]

    def of(arm: str, note: str) -> RunRecord:
        changes = {"arm": arm, "control": arm.partition("+")[2], "label": f"{arm}: vit -> cnn, seed 0", "notes": [note]}
        return record.model_copy(update=changes)

    before, mirrored = (f"Teacher and control teacher in validation accuracy: {apart} points apart." for apart in ("+2.2", "-2.2"))
    records = [of(f"{method}+{control}", note) for method in ("kd", "deit")
               for control, note in (("control_teacher", mirrored), ("matched_teacher", before))]  # fmt: skip
    assert notes(records) == [("deit+matched_teacher: vit -> cnn, seed 0 and kd+matched_teacher: vit -> cnn, seed 0", before)]
    assert notes(records[:1]) == [("kd+control_teacher: vit -> cnn, seed 0", mirrored)]  # its counterpart failed
