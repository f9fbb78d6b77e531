"""Contrasts beyond the independents: which of them open the page, what stands beside the controls, tau, and one run an arm."""

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from crossdistill.compare import write_table
from crossdistill.core.records import Against, InheritanceRow, TransferRow
from crossdistill.report.conclusion import conclusion, too_few_runs
from crossdistill.report.contrast_names import CONTRASTS
from crossdistill.report.contrast_tables import MOST, contrast_table, controls_table, shown_contrasts
from crossdistill.report.headline import headline_contrasts, headline_rows
from crossdistill.report.page import render
from crossdistill.report.sections.controls import nowhere_given, transfer_table
from crossdistill.report.sentences import verdict_sentences
from crossdistill.report.study_files import read_study
from crossdistill.report.tables import in_words
from crossdistill.report.words import MINUS

HOSTILE = '"><script>alert(1)</script>'


def row(contrast: Against = "independent", **changes: Any) -> InheritanceRow:
    """A contrast of six runs: 4.1 points, the teacher at 12."""
    numbers: dict[str, Any] = dict(difference=0.041, low=0.012, high=0.07, p_raw=0.01, p_holm=None, p_bh=0.03, p_source="Welch t")
    numbers |= dict(family_size=20, minimum_detectable=0.04, runs_needed=5, teacher_gap=0.12, gap_low=0.08, gap_high=0.16)
    names = dict(pair=0, teacher="vit", student="cnn", method="kd", contrast=contrast, probe="scramble", metric="accuracy")
    rest = dict(level_or_auc="auc", role="secondary", fidelity=0.03, n_runs=6, n_teachers=6, verdict="inherited", reason="a reason")
    return InheritanceRow.model_validate({**names, **numbers, **rest, **changes})


def clean(contrast: Against = "independent", **changes: Any) -> InheritanceRow:
    return row(contrast, **{"probe": "clean", "level_or_auc": "", **changes})


def lost(contrast: Against, reason: str, **changes: Any) -> InheritanceRow:
    none = dict.fromkeys(("difference", "low", "high", "p_raw", "p_bh", "teacher_gap", "gap_low", "gap_high", "minimum_detectable"))
    return row(contrast, **{**none, "verdict": "not_measurable", "reason": reason, **changes})


def side(**changes: Any) -> InheritanceRow:
    return row("second_independent", **{"metric": "side_with_teacher", **changes})


def tau(probe: str, **changes: Any) -> TransferRow:
    names = dict(pair=0, teacher="vit", student="cnn", method="kd", metric="accuracy", probe=probe, level_or_auc="auc")
    numbers = dict(tau=0.4, low=-0.26, high=0.54, teacher_gap=0.1, gap_low=0.07, gap_high=0.13, n_runs=5, status="ok", reason=None)
    return TransferRow.model_validate({**names, **numbers, **changes})


def no_tau(probe: str, reason: str) -> TransferRow:
    return tau(probe, tau=None, low=None, high=None, teacher_gap=0.011, status="not_measurable", reason=reason)


EVERY = [clean(contrast) for contrast in CONTRASTS if contrast != "second_independent"]
EVERY += [row(contrast) for contrast in CONTRASTS if contrast != "second_independent"] + [side(), side(probe="clean", level_or_auc="")]


def with_tables(folder: Path, rows: Sequence[InheritanceRow], transfer: Sequence[TransferRow] = ()) -> Path:
    """A study of which only the table of contrasts is left, and one of tau where there are rows for it."""
    folder.mkdir(exist_ok=True)
    (folder / "study.yaml").write_text("name: controls", encoding="utf-8")
    write_table(rows, folder / "inheritance.parquet", InheritanceRow)
    if transfer:
        write_table(transfer, folder / "transfer.parquet", TransferRow)
    return folder


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


class Text(HTMLParser):
    """The words of a page without its script and style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            self.open.remove(tag)

    def handle_data(self, data: str) -> None:
        if not self.open:
            self.words.append(data)


def words(page: str) -> str:
    return re.sub(r"\s+", " ", " ".join(Text(page).words)).replace("\u00a0", " ").replace(MINUS, "-")


@pytest.fixture(scope="module")
def full_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a study with every contrast, one of which cannot be measured, and tau."""
    rows = [*EVERY, lost("control_teacher", "teachers and control teachers are 4.2 points apart", probe="superpixel", teachers_apart=0.042)]
    rows += [side(metric="side_with_teacher_wrong", difference=-0.02, low=-0.05, high=0.01)]
    rows += [side(metric="side_with_teacher_wrong", probe="clean", level_or_auc="", difference=0.015)]
    transfer = [tau("scramble"), no_tau("superpixel", "the teacher leads by 1.1 points: at least 5 are needed"), tau("all", tau=0.35)]
    return render(read_study(with_tables(tmp_path_factory.mktemp("full"), rows, transfer)))


def test_without_a_declaration_the_twin_comes_before_the_independents() -> None:
    assert headline_rows([row(), row("shuffled_teacher"), row("accuracy_matched")], ()) == [row()]
    assert headline_rows([row(), row("twin"), row("shuffled_teacher")], ()) == [row("twin")]


def test_declared_contrasts_open_the_page_and_decide_for_their_method_alone() -> None:
    declared = row("control_teacher", role="primary")
    beside = [row(), row("twin"), clean("control_teacher"), row(method="dkd"), row("twin", method="dkd")]
    assert headline_rows([declared, *beside], ()) == [declared, beside[2], beside[4]]
    assert headline_contrasts([declared, *beside]) == {(0, "kd"): {"control_teacher"}, (0, "dkd"): {"twin"}}
    both = [row(role="primary"), declared]
    assert headline_rows(both, ()) == both


def test_sides_taken_open_the_page_where_they_were_declared() -> None:
    declared = side(role="primary")
    wrong = side(metric="side_with_teacher_wrong")
    assert headline_rows([declared, wrong, row()], ()) == [declared]


def test_the_mean_over_levels_of_one_contrast_does_not_hide_the_only_level_of_another() -> None:
    single = row("twin", level_or_auc="grid=4", role="primary")
    other = row("twin", level_or_auc="grid=8")
    assert headline_rows([row(), single, other], ()) == [single, other]


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_every_sentence_says_what_the_students_are_compared_with(contrast: Against) -> None:
    (sentence,) = verdict_sentences([row(contrast)])
    assert f"+4.1\u00a0points (+1.2 to +7.0) {CONTRASTS[contrast].against}; {CONTRASTS[contrast].lead}: +12.0" in sentence.text
    named = CONTRASTS[contrast].against in conclusion([row(contrast)])
    assert named == (contrast != "independent")


def test_nothing_to_inherit_from_a_control_teacher_speaks_of_the_two_teachers() -> None:
    (sentence,) = verdict_sentences([row("control_teacher", verdict="nothing_to_inherit", teacher_gap=0.004, gap_low=-0.01, gap_high=0.02)])
    assert sentence.text.startswith("Teacher and control teacher do not differ enough")


def test_a_p_says_which_correction_it_went_through() -> None:
    text = verdict_sentences([row()])[0].text.replace("\u00a0", " ")
    assert "p = 0.030 after Benjamini-Hochberg over 20 contrasts not declared" in text
    declared = verdict_sentences([row(role="primary", p_holm=0.02, p_bh=None, family_size=2)])[0].text.replace("\u00a0", " ")
    assert "p = 0.020 after Holm over 2 declared contrasts" in declared


def test_the_contrast_table_keeps_the_two_corrections_apart_and_names_the_procedure() -> None:
    table = contrast_table([row(role="primary", p_holm=0.02, p_bh=None), row("twin"), row(p_bh=None), lost("twin", "no twin was trained")])
    heads = [column.name for column in table.columns]
    holm, others, procedure = (heads.index(name) for name in heads if name.startswith("p after") or name == "Procedure")
    assert [cells[holm].text for cells in table.rows] == ["0.020", "no p", "no p", "no p"]
    assert [(cells[others].text, cells[others].small) for cells in table.rows] == [
        ("no p", ""), ("0.030", ""), ("0.010", "uncorrected"), ("no p", "")
    ]  # fmt: skip
    assert {cells[procedure].text for cells in table.rows} == {"Welch t"}
    assert [cells[2].text for cells in table.rows] == ["Independent", "Twin", "Independent", "Twin"]


def test_differences_that_are_no_shares_are_not_called_points() -> None:
    table = contrast_table([row(metric="calibration_nll"), row()], {"calibration_nll": "nats", "accuracy": "share"})
    assert [(plain(cells[4].text), plain(cells[4].small)) for cells in table.rows] == [
        ("+0.041 nats", "+0.012 to +0.070"), ("+4.1", "+1.2 to +7.0")
    ]  # fmt: skip
    assert [cells[9].text.replace("\u00a0", " ") for cells in table.rows] == ["0.040 nats", "4.0"]


def test_a_large_study_shows_what_fits_and_says_that_there_is_more() -> None:
    levels = [row(level_or_auc=f"grid={place}") for place in range(MOST)]
    assert shown_contrasts([*levels[1:], row()]) == [*levels[1:], row()]
    declared = row(level_or_auc="grid=2", role="primary")
    assert shown_contrasts([*levels, row(), declared]) == [row(), declared]
    probes = [row(probe=str(place), metric=metric) for metric in ("confidence", "accuracy") for place in range(MOST - 1)]
    kept = shown_contrasts([*probes, declared])
    assert len(kept) == MOST
    assert {r.metric for r in kept} == {"accuracy"}
    assert kept[0] == declared
    assert len(shown_contrasts([row(probe=str(place)) for place in range(MOST + 9)])) == MOST


def test_controls_stand_side_by_side_probe_by_probe() -> None:
    table = controls_table([*EVERY, lost("twin", "one reason", probe="superpixel")], "vit → cnn, kd")
    assert table is not None
    assert [column.name for column in table.columns] == ["Images", *(words.title for words in CONTRASTS.values())]
    assert [cells[0].text for cells in table.rows] == ["clean", "scramble", "superpixel"]
    assert {(cell.text, plain(cell.small)) for cells in table.rows[:2] for cell in cells[1:]} == {("+4.1", "+1.2 to +7.0, inherited")}
    assert [cell.text for cell in table.rows[2][1:]] == ["not compared"] * 2 + ["not measurable"] + ["not compared"] * 4
    assert table.footnotes == ["one reason"]


def test_a_bare_difference_without_a_claim_is_not_shown(tmp_path: Path) -> None:
    bare = [row(contrast, verdict="not_measurable", reason="no spread between runs") for contrast in ("twin", "control_teacher")]
    table = controls_table(bare, "vit → cnn, kd")
    assert table is not None
    assert {cell.text for cell in table.rows[0][1:]} == {"not measurable"}
    sides = side(verdict="not_measurable", reason="no spread between runs")
    text = words(render(read_study(with_tables(tmp_path, [row(), sides]))))
    assert "nothing can be said of whose side kd takes: no spread between runs." in text
    refused = transfer_table([tau("scramble", status="not_measurable", reason="too small a lead")])
    assert refused is not None
    assert refused.rows[0][3].text == "not measurable"


def test_the_levels_behind_a_contrast_are_those_of_its_own_arms(study_folder: Path) -> None:
    study = read_study(study_folder)
    controls = {"kd+twin": None, "kd+matched_teacher": "vit", "kd+control_teacher": "cnn"}
    pair = replace(study.pairs[0], controls=controls)
    taught = [r for r in study.results if (r.arm, r.student, r.probe, r.level, r.metric) == ("kd", "cnn", "scramble", "auc", "accuracy")]
    others = [r.model_copy(update={"arm": arm, "teacher": of}) for r in taught for arm, of in controls.items()]
    study = replace(study, results=(*study.results, *others))
    named = {c: re.findall(r"([a-z+_ ]+) [\d.]+\u00a0%", in_words(study, pair, row(c))) for c in CONTRASTS}
    assert [name.strip() for name in named["independent"]] == ["teacher vit", "independent cnn", "kd"]
    assert [name.strip() for name in named["twin"]] == ["teacher vit", "kd", "kd+twin"]
    assert [name.strip() for name in named["control_teacher"]] == ["teacher vit", "kd+matched_teacher", "kd+control_teacher"]


def test_students_compared_with_independents_alone_need_no_table_of_controls() -> None:
    assert controls_table([row(), clean()], "vit → cnn, kd") is None


def test_the_page_shows_every_control_in_words(full_page: str) -> None:
    text = words(full_page)
    for contrast in CONTRASTS.values():
        assert f"{contrast.title} {contrast.meaning}." in text
    assert "teachers and control teachers are 4.2 points apart" in text
    assert "Teachers minus control teachers in validation accuracy: +4.2 points." in text
    assert (
        "Where teacher and independent student answer differently, kd sides with the teacher 4.1 points more often than a second "
        "independent student on scramble images (+1.2 to +7.0)."
    ) in text
    assert (
        "both of them are wrong, kd sides with the teacher 2.0 points less often than a second independent student on scramble images "
        "(-5.0 to +1.0). On other images, in points: clean +1.5 (+1.2 to +7.0)."
    ) in text
    assert not re.search(r"\b(nan|inf|None|null|undefined)\b", text, flags=re.IGNORECASE)


def test_sides_that_cannot_be_told_give_their_reason(tmp_path: Path) -> None:
    none = lost("second_independent", "12 images on which they differ", metric="side_with_teacher")
    text = words(render(read_study(with_tables(tmp_path, [row(), none]))))
    assert "nothing can be said of whose side kd takes: 12 images on which they differ." in text


def test_the_page_explains_tau_and_why_it_is_often_missing(full_page: str) -> None:
    text = words(full_page)
    assert "1 is a student that stands where its teacher stands" in text
    assert "0.40 -0.26 to 0.54" in text
    assert "all probes, pooled" in text
    assert "the teacher leads by 1.1 points: at least 5 are needed" in text


def test_tau_without_ends_says_so() -> None:
    table = transfer_table([tau("scramble", low=None, high=None)])
    assert table is not None
    assert (table.rows[0][3].text, table.rows[0][3].small) == ("0.40", "interval without end")


def test_a_study_without_these_tables_has_no_such_sections(tmp_path: Path) -> None:
    page = render(read_study(with_tables(tmp_path, [row()])))
    assert 'id="controls"' not in page
    assert "The ratio tau" not in page
    assert 'id="layers"' not in page
    assert 'id="looks"' not in page


def test_inherited_beside_independents_alone_does_not_claim_the_architecture(tmp_path: Path) -> None:
    caution = "only a control teacher can tell"
    independent = with_tables(tmp_path / "independent", [row()])
    controlled = with_tables(tmp_path / "controlled", [row(), row("control_teacher", role="primary")])
    assert caution in words(render(read_study(independent)))
    assert caution not in words(render(read_study(controlled)))


def test_one_run_an_arm_is_no_claim() -> None:
    single = row(n_runs=1, verdict="unresolved", p_raw=None, p_bh=None, minimum_detectable=None, runs_needed=None)
    (sentence,) = verdict_sentences([single])
    assert "One run, no claim: the interval is over the images of these networks" in sentence.text
    assert "1 run an arm cannot" not in sentence.text
    faint = [single.model_copy(update={"low": -0.1, "probe": probe}) for probe in ("scramble", "superpixel")]
    (group,) = verdict_sentences(faint)
    assert group.text.startswith("One run, no claim:")
    assert conclusion([single]).startswith("One run, no claim: ")
    assert "intervals are over the images of these very networks" in (too_few_runs([single]) or "")
    assert "images of these" not in (too_few_runs([row(n_runs=2)]) or "")


def test_tau_that_is_nowhere_given_for_one_reason_is_told_once(tmp_path: Path) -> None:
    refused = [no_tau(probe, "there is no second_independent arm") for probe in ("scramble", "superpixel", "all")]
    text = words(render(read_study(with_tables(tmp_path, [row()], refused))))
    assert text.count("there is no second_independent arm") == 1
    assert "Here it is not given: there is no second_independent arm." in text
    assert nowhere_given([*refused, tau("clean")]) == ""
    assert nowhere_given([*refused, no_tau("clean", "the teacher leads by 1.1 points")]) == ""


def test_hostile_names_in_every_new_table_stay_text(tmp_path: Path) -> None:
    evil = dict(method=HOSTILE, teacher=HOSTILE, student=HOSTILE, probe=HOSTILE)
    rows = [r.model_copy(update={**evil, "reason": HOSTILE, "p_source": HOSTILE}) for r in EVERY]
    folder = with_tables(tmp_path, rows, [tau("scramble").model_copy(update=evil), no_tau(HOSTILE, HOSTILE)])
    page = render(read_study(folder))
    assert "Beside the controls" in page
    assert page.count("<script") == 1
