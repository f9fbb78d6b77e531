"""Verdicts: which evidence leads to which, and that few runs never lead to a claim."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdistill.compare.verdicts import Evidence, judge, points
from crossdistill.core.records import Against
from crossdistill.core.types import Estimate

GAP = Estimate(0.20, 0.15, 0.25, n=5)
WITHOUT_CLAIM = {"unresolved", "nothing_to_inherit", "method_did_not_act", "not_measurable"}


def evidence(difference=(0.10, 0.06, 0.14), gap=GAP, n_runs=5, detectable=0.05, needed=4, **more):
    return Evidence(n_runs, Estimate(*difference, n=n_runs), gap, detectable, needed, **more)


def test_off_zero_toward_the_teacher_is_inherited():
    verdict, reason = judge(evidence())
    assert verdict == "inherited"
    expected = (
        "5 runs an arm: the difference of +10.0 points (6.0 to 14.0) is off zero, toward the teacher's gap of +20.0 points (15.0 to 25.0); "
        "this does not tell the teacher's architecture from teaching as such unless the contrast with control_teacher says so"
    )
    assert reason == expected


def test_off_zero_away_from_the_teacher_moved_away():
    assert judge(evidence((-0.10, -0.14, -0.06))).verdict == "moved_away"


def test_a_fall_toward_a_worse_teacher_is_inherited_too():
    assert judge(evidence((-0.10, -0.14, -0.06), gap=Estimate(-0.2, -0.3, -0.1))).verdict == "inherited"


def test_an_interval_inside_the_margin_is_equivalent():
    verdict, reason = judge(evidence((0.002, -0.015, 0.019), detectable=0.01))
    assert verdict == "equivalent"
    assert "lies inside the margin of 2.0 points" in reason


def test_the_margin_grows_to_the_smallest_detectable_difference():
    assert judge(evidence((0.01, -0.02, 0.04), detectable=0.05)).verdict == "equivalent"
    assert judge(evidence((0.01, -0.04, 0.06), detectable=0.05)).verdict == "unresolved"


def test_an_unresolved_contrast_names_the_smallest_detectable_difference():
    verdict, reason = judge(evidence((0.04, -0.02, 0.10), detectable=0.08))
    assert verdict == "unresolved"
    assert "is not told from zero; the smallest detectable difference is 8.0 points" in reason


def test_a_declared_contrast_must_hold_after_holm():
    assert judge(evidence(p_holm=0.04)).verdict == "inherited"
    verdict, reason = judge(evidence(p_holm=0.06))
    assert verdict == "unresolved"
    assert "does not hold after Holm's correction over the declared contrasts (p = 0.06)" in reason


def test_any_other_contrast_must_hold_after_benjamini_hochberg():
    assert judge(evidence(p_bh=0.04, family_size=1200)).verdict == "inherited"
    verdict, reason = judge(evidence(p_bh=0.06, family_size=1200))
    assert verdict == "unresolved"
    assert "does not hold after Benjamini-Hochberg over 1,200 contrasts (p = 0.06)" in reason


def test_a_study_that_half_of_the_gap_could_escape_finds_no_equivalence():
    found = dict(difference=(0.01, -0.05, 0.07), detectable=0.08)
    assert judge(evidence(**found, gap=Estimate(0.16, 0.05, 0.27))).verdict == "equivalent"
    verdict, reason = judge(evidence(**found, gap=Estimate(0.15, 0.04, 0.26)))
    assert verdict == "unresolved"
    assert "nor is it equivalent: half of the gap of +15.0 points (4.0 to 26.0) could have gone unseen" in reason
    assert judge(evidence(**found, gap=Estimate(-0.16, -0.27, -0.05))).verdict == "equivalent"  # a worse teacher's gap is a gap


@pytest.mark.parametrize("n_runs", [0, 1])
def test_one_run_claims_nothing_not_even_that_the_method_did_not_act(n_runs):
    nothing = Estimate(0.001, -0.01, 0.012)
    verdict, reason = judge(evidence(n_runs=n_runs, gap=nothing, inaction="no closer", detectable=None, needed=None))
    assert verdict == "unresolved"
    assert reason.startswith("one run, no claim: a difference of +10.0 points (6.0 to 14.0) over images")


@pytest.mark.parametrize("against", get_args(Against))
def test_what_a_method_adds_is_no_inheritance_against_plain_independents(against):
    plain = against in ("independent", "accuracy_matched", "second_independent")
    for difference in ((0.10, 0.06, 0.14), (-0.10, -0.14, -0.06)):
        verdict, reason = judge(evidence(difference, against=against, changed=True, has_twin=True))
        assert (verdict == "unresolved") == plain
        assert ("to be read against its twin" in reason) == plain
    assert "an arm that this study does not have" in judge(evidence(changed=True)).reason


@pytest.mark.parametrize("against", get_args(Against))
def test_where_no_control_teacher_can_exist_nothing_is_ever_inherited(against):
    verdict, reason = judge(evidence(against=against, no_control="it is for CNNs"))
    assert verdict == "unresolved"
    assert reason.endswith(
        "no control teacher can exist for it (it is for CNNs): what moved cannot be ascribed to the teacher's architecture"
    )
    assert judge(evidence((-0.10, -0.14, -0.06), against=against, no_control="it is for CNNs")).verdict == "moved_away"
    assert judge(evidence((0.0, -0.01, 0.01), detectable=0.01, against=against, no_control="it is for CNNs")).verdict == "equivalent"


@pytest.mark.parametrize(
    ("against", "words"),
    [
        ("twin", "teacher minus independent, +1.5 points"),
        ("control_teacher", "teacher minus control teacher, +1.5 points"),
        ("second_independent", "what always siding with the teacher would add to the second independents' rate, +1.5 points"),
    ],
)
def test_what_there_is_to_inherit_is_named_contrast_by_contrast(against, words):
    verdict, reason = judge(evidence(gap=Estimate(0.015, 0.01, 0.02), against=against))
    assert (verdict, words in reason) == ("nothing_to_inherit", True)


def test_two_runs_say_how_many_are_needed():
    verdict, reason = judge(evidence((0.031, -0.04, 0.102), n_runs=2, needed=7))
    assert verdict == "unresolved"
    assert reason == "2 runs an arm: the difference of +3.1 points (-4.0 to 10.2) needs about 7 runs an arm to be told from zero"


def test_fewer_than_five_runs_are_never_called_enough():
    assert "needs about 5 runs an arm" in judge(evidence(n_runs=4, needed=2)).reason


def test_a_difference_out_of_reach_says_so():
    assert "too small for any number of runs" in judge(evidence((0.0, -0.04, 0.04), n_runs=3, needed=None)).reason


@pytest.mark.parametrize(
    ("gap", "verdict", "words"),
    [
        ((0.05, -0.01, 0.11), "unresolved", "is not told from zero"),
        ((0.015, 0.01, 0.02), "nothing_to_inherit", "under 2 points"),
        ((0.01, -0.25, 0.27), "unresolved", "is not told from zero"),
    ],
)
def test_a_small_gap_leaves_nothing_to_inherit_and_an_uncertain_one_leaves_the_contrast_open(gap, verdict, words):
    found, reason = judge(evidence(gap=Estimate(*gap)))
    assert found == verdict
    assert words in reason


def test_the_questions_are_asked_in_order():
    flat, unreadable = Estimate(0.0, -0.1, 0.1), Estimate.not_measurable("kd at chance")
    assert judge(evidence(gap=flat, inaction="no closer")) == ("method_did_not_act", "no closer")
    assert judge(Evidence(5, unreadable, flat, None, None, inaction="no closer")) == ("not_measurable", "kd at chance")
    assert judge(evidence(gap=unreadable, inaction="no closer")) == ("not_measurable", "kd at chance")


@st.composite
def estimates(draw):
    if draw(st.booleans()) and draw(st.booleans()):
        return Estimate.not_measurable("a reason", n=draw(st.integers(0, 9)))
    low, value, high = sorted(draw(st.lists(st.floats(-1, 1), min_size=3, max_size=3)))
    return Estimate(value, low, high)


any_evidence = st.builds(
    Evidence,
    n_runs=st.integers(0, 12),
    difference=estimates(),
    gap=estimates(),
    minimum_detectable=st.none() | st.floats(0, 1),
    runs_needed=st.none() | st.integers(2, 9999),
    inaction=st.none() | st.just("no closer"),
    p_holm=st.none() | st.floats(0, 1),
    p_bh=st.none() | st.floats(0, 1),
    family_size=st.integers(0, 999),
    against=st.sampled_from(get_args(Against)),
    changed=st.booleans(),
    has_twin=st.booleans(),
    no_control=st.none() | st.just("no attention"),
)


@given(any_evidence)
@settings(max_examples=300, deadline=None)
def test_whatever_the_evidence_a_claim_takes_five_runs_an_arm(found):
    verdict, reason = judge(found)
    assert reason
    assert "nan" not in reason
    if found.n_runs < 5:
        assert verdict in WITHOUT_CLAIM
    if verdict in ("inherited", "moved_away"):
        assert not found.difference.low <= 0 <= found.difference.high
        assert (verdict == "inherited") == (found.difference.value * found.gap.value > 0)
        assert all(p is None or p <= 0.05 for p in (found.p_holm, found.p_bh))
        assert not (found.changed and found.against in ("independent", "accuracy_matched", "second_independent"))
    if verdict == "inherited":
        assert found.no_control is None
    if verdict == "equivalent":
        assert max(abs(found.difference.low), abs(found.difference.high)) < abs(found.gap.value)


def test_points_have_no_negative_zero():
    assert (points(-0.0001), points(0.031), points(-0.0204)) == ("+0.0 points", "+3.1 points", "-2.0 points")
