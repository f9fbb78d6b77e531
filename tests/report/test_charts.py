"""Charts: SVG that scales, says what it shows, and reads on light and dark pages."""

import re
from xml.etree import ElementTree

import pytest

from crossdistill.report import charts
from crossdistill.report.headline import headline_rows
from crossdistill.report.study_files import read_study
from crossdistill.report.tables import series_of

PAGES = ("#fbfbfa", "#ffffff", "#12171c", "#192027")  # page and panel of style.css, light and dark


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("colour", sorted({*charts.VERDICT_COLOURS.values(), *charts.METHOD_COLOURS, charts.TEACHER_COLOUR}))
def test_every_mark_stands_out_from_light_and_dark_pages(colour: str, page: str):
    low, high = sorted([luminance(colour), luminance(page)])
    assert (high + 0.05) / (low + 0.05) >= 3  # WCAG 1.4.11, graphics


def test_no_two_verdicts_share_colour_and_shape():
    looks = {verdict: (charts.VERDICT_COLOURS[verdict], charts.VERDICT_SHAPES[verdict]) for verdict in charts.VERDICT_COLOURS}
    # What cannot be measured has no mark at all, only words.
    del looks["not_measurable"]
    assert len(set(looks.values())) == len(looks)


def test_the_style_sheet_exchanges_every_ink_of_the_charts_in_the_dark():
    style = (charts.__file__.rsplit("/", 1)[0]) + "/style.css"
    with open(style, encoding="utf-8") as file:
        text = file.read()
    for ink in (charts.INK, charts.FAINT, charts.GRID):
        assert f'[stroke="{ink}"]' in text


def test_the_inheritance_chart_scales_and_describes_itself(study_folder):
    study = read_study(study_folder)
    rows = [row for row in headline_rows(study.inheritance, study.choice_sets) if row.pair == 0]
    drawing = charts.inheritance_chart(study.pairs[0], rows, charts.axis_limit(rows))
    root = ElementTree.fromstring(drawing)
    assert "viewBox" in root.attrib
    assert "width" not in root.attrib
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"].startswith("vit → cnn: differences")
    assert ">scramble accuracy<" in drawing


def test_what_is_not_measurable_is_said_in_the_chart(study_folder):
    study = read_study(study_folder)
    row = headline_rows(study.inheritance, study.choice_sets)[0]
    lost = row.model_copy(update={"verdict": "not_measurable", "difference": None, "low": None, "high": None, "teacher_gap": None})
    assert "not measurable" in charts.inheritance_chart(study.pairs[0], [lost], 10)


def test_a_hostile_name_stays_text(study_folder):
    study = read_study(study_folder)
    rows = [
        row.model_copy(update={"method": "<script>alert(1)</script>"}) for row in headline_rows(study.inheritance, study.choice_sets)[:2]
    ]
    rows.append(rows[0].model_copy(update={"method": "kd"}))
    assert "<script" not in charts.inheritance_chart(study.pairs[0], rows, 10)


def test_very_wide_intervals_do_not_flatten_the_rest(study_folder):
    row = headline_rows(read_study(study_folder).inheritance, ())[0]
    row = row.model_copy(update={"difference": 0.1, "low": -8.0, "high": 8.2, "teacher_gap": 0.2})
    # 1.1 x the largest centre, 20 points, times 2: beyond that an arrow head says that the interval goes on.
    assert charts.axis_limit([row]) == pytest.approx(44)


def test_curves_and_training_are_drawn_for_what_was_observed(study_folder):
    study = read_study(study_folder)
    drawing = charts.accuracy_curves(study, study.pairs[0], "scramble")
    assert drawing is not None
    assert re.search(r">grid<", drawing)
    assert charts.accuracy_curves(study, study.pairs[0], "no_such_probe") is None
    arms = [charts.LegendItem("kd", "#2d7cc0", "circle")]
    assert charts.training_chart("cnn", [r for r in study.records if r.arm == "kd"], arms) is not None
    assert charts.training_chart("cnn", [], arms) is None


def test_every_series_of_a_pair_has_its_own_colour(study_folder):
    colours = charts.series_colours(series_of(read_study(study_folder).pairs[0]))
    assert len(set(colours.values())) == 3


def test_lines_of_several_contrasts_are_told_apart_by_whole_names(study_folder):
    study = read_study(study_folder)
    row = headline_rows(study.inheritance, ())[0]
    rows = [row.model_copy(update={"contrast": contrast}) for contrast in ("control_teacher", "shuffled_teacher")]
    drawing = charts.inheritance_chart(study.pairs[0], rows, 10)
    assert {"kd, control teacher", "kd, shuffled teacher"} <= set(re.findall(r">([^<>]+)</text>", drawing))
