"""The charts of the page: Vega-Lite through altair, drawn to SVG that reads in light and dark and shrinks to a phone.

Every chart is drawn at the width of a phone, so that its text stays readable there; wide screens set charts side by side.
Inks are named colours of the light page; the style sheet exchanges them in the dark (`INK`, `FAINT`, `GRID`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossdistill.core.records import Verdict
from crossdistill.report.study_files import PlannedPair
from crossdistill.report.tables import Series, series_of

INK, FAINT, GRID = "#1c2733", "#66717d", "#dfe4e9"
"""Text, secondary text and grid lines; style.css holds their dark counterparts."""

VERDICT_COLOURS: Mapping[Verdict, str] = {
    "inherited": "#12876b",
    "moved_away": "#c9521c",
    "equivalent": "#2d7cc0",
    "unresolved": "#8a6bbd",
    "nothing_to_inherit": "#7b858f",
    "method_did_not_act": "#a3791f",
    "not_measurable": "#7b858f",
}
"""At least 3:1 against the light and the dark page; told apart with every common colour blindness, and never by colour alone."""

VERDICT_SHAPES: Mapping[Verdict, str] = {
    "inherited": "circle",
    "moved_away": "triangle-down",
    "equivalent": "square",
    "unresolved": "triangle-up",
    "nothing_to_inherit": "stroke",
    "method_did_not_act": "cross",
    "not_measurable": "",  # no mark, but words
}


@dataclass(frozen=True)
class LegendItem:
    """A colour and shape of a chart, in words."""

    name: str
    colour: str
    shape: str
    meaning: str = ""


@dataclass(frozen=True)
class Drawing:
    """A chart as SVG with its heading and a remark."""

    title: str
    svg: str
    remark: str = ""


TEACHER_COLOUR, INDEPENDENT_COLOUR = "#8a6bbd", "#7b858f"
METHOD_COLOURS = ("#2d7cc0", "#c9521c", "#12876b", "#b8487f", "#a3791f", "#5c6bc0")
SERIES_SHAPES = ("diamond", "square", "circle", "triangle-up", "triangle-down", "cross", "triangle-left", "triangle-right")

WIDTH = 330  # px, the width of a phone's screen less its margins
FONT_PX = 13


def series_colours(all_series: Sequence[Series]) -> dict[str, str]:
    """One colour per series: the teacher's, the independents', then one per method in order."""
    fixed = {"teacher": TEACHER_COLOUR, "independent": INDEPENDENT_COLOUR}
    methods = [series.arm for series in all_series if series.arm not in fixed]
    colours = fixed | {arm: METHOD_COLOURS[place % len(METHOD_COLOURS)] for place, arm in enumerate(dict.fromkeys(methods))}
    return {series.name: colours[series.arm] for series in all_series}


def series_legend(pair: PlannedPair) -> list[LegendItem]:
    """The networks of a pair's drawings."""
    colours = series_colours(series_of(pair))
    return [LegendItem(name, colours[name], SERIES_SHAPES[i % len(SERIES_SHAPES)]) for i, name in enumerate(colours)]


def marked(points: Any) -> Any:
    """The point marks with the field `label` of their data as their accessible description, which the page shows on hover."""
    import altair as alt

    return points.encode(description=alt.Description("label:N"))


def svg(chart: Any, description: str) -> str:
    """A chart as an SVG element that takes the width it is given, with a description for those who do not see it.

    Of its parts only marks made by `marked` carry a description of their own.
    """
    import altair
    import vl_convert

    inks: dict[str, Any] = dict(labelColor=INK, titleColor=FAINT, gridColor=GRID, domainColor=GRID, tickColor=GRID)
    # `configure` first: it replaces what the others have set.
    chart = chart.configure(background="transparent", font="system-ui, sans-serif", padding=4)
    chart = chart.configure_axis(
        **inks, labelFontSize=FONT_PX, titleFontSize=FONT_PX, titleFontWeight="normal", titlePadding=8, aria=False
    ).configure_view(stroke=None)
    with altair.data_transformers.disable_max_rows():
        # Not validated: checking a specification against Vega-Lite's schema takes as long as drawing it.
        specification = chart.to_dict(validate=False)
    text = vl_convert.vegalite_to_svg(specification, vl_version="_".join(altair.SCHEMA_VERSION.lstrip("v").split(".")[:2]))
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None, "vl-convert gives every SVG a viewBox"
    label = _escaped(description)
    # The size goes, the box stays: the picture then fills whatever width the page has.
    return re.sub(r"^<svg[^>]*>", lambda _: f'<svg class="chart" role="img" aria-label="{label}" {box[0]}>', lean(text), count=1)


def lean(text: str) -> str:
    """An SVG of vl-convert without what says nothing: roles inside a picture, empty frames, a thousandth of a pixel; half the bytes."""
    return re.sub(r"<[^<>]*>", lambda tag: _lean_tag(tag[0]), text).replace("<g></g>", "")  # words between tags are left alone


def _lean_tag(tag: str) -> str:
    for needless in _NEEDLESS:
        tag = re.sub(needless, "", tag)
    return re.sub(r' (?:transform|d|x2|y2)="[^"]*"', lambda found: re.sub(r"(\d\.\d)\d+(?!\d*e)", r"\1", found[0]), tag)


_NEEDLESS = (
    r'^<path class="(?:background|foreground)".*',
    r' aria-roledescription="[^"<>]*"',
    r' aria-hidden="true"',
    r' pointer-events="none"',
    r' role="graphics-(?:object|symbol)"',
    r'(?<=<g) class="[^"<>]*"',
    r' font-family="[^"<>]*"',  # the page's own
    r' opacity="1"',
)


def _escaped(text: str) -> str:
    from markupsafe import escape

    return str(escape(text))
