"""Charts: SVG that scales, says what it shows, and reads on light and dark pages."""

import re
from xml.etree import ElementTree

import pytest

from crossdistill.report import charts
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


def test_an_svg_keeps_its_words_and_marks_and_loses_what_says_nothing():
    import altair as alt

    data = [{"x": 0.123456, "y": 1, "name": 'a d="0.123456" opacity="1"', "label": "kd: 12.3456 %"}]
    base = alt.Chart(alt.Data(values=data)).encode(x="x:Q", y="y:Q")
    points = charts.marked(base.mark_point(filled=True))
    drawing = charts.svg(alt.layer(points, base.mark_text(aria=False).encode(text="name:N")), "two layers")
    root = ElementTree.fromstring(drawing)
    labels = [element.attrib["aria-label"] for element in root.iter() if "aria-label" in element.attrib]
    assert labels == ["two layers", "kd: 12.3456 %"]  # axes have none: only marks are to be read when they are pointed at
    assert 'a d="0.123456" opacity="1"' in "".join(root.itertext())
    assert not any(re.search(r"\.\d{2}", element.attrib.get("transform", "")) for element in root.iter())
    assert "aria-roledescription" not in drawing


def test_every_series_of_a_pair_has_its_own_colour(study_folder):
    colours = charts.series_colours(series_of(read_study(study_folder).pairs[0]))
    assert len(set(colours.values())) == 3
