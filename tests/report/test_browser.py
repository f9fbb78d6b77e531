"""The page in a real browser: what moves, what is read aloud, what is printed, and what a hostile name can do (nothing)."""

import contextlib
import csv
import io
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crossdistill.report.page import build_page

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no `chromium` on this machine (Debian: apt-get install chromium)")

DEMO = Path(__file__).parents[2] / "docs" / "examples" / "demo"
DESK, PHONE = {"width": 1400, "height": 900}, {"width": 390, "height": 844}
RIGHT_TO_LEFT = "\u202eevil\u202c \u05e9\u05dc\u05d5\u05dd"
HOSTILE = (
    "<script>alert(1)</script>",
    "n" * 200,
    RIGHT_TO_LEFT,
    "\"'`${alert(2)}`",
    "]]><img src=x onerror=alert(3)>",
    "a&b%c_d#e$f{g}~h^i\\j|k",
)

# Stands in for the clipboard, which a browser without a window may refuse: what would have been copied lies in `copied`.
CLIPBOARD = (
    "window.copied = []; Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => { copied.push(text); }}});"
)
UNFOLD = "document.querySelectorAll('main details').forEach((details) => (details.open = true))"


@dataclass
class Opened:
    """A page in the browser, with what it said on the console and asked of the network."""

    page: Any
    said: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Open]:
    """Opens a file: `visit(path, viewport=PHONE, color_scheme="dark")`; any request but that for the file itself is refused and noted."""
    contexts = []

    def opened(path: Path, *, place: str = "", init: str = CLIPBOARD, **options: Any) -> Opened:
        context = browser.new_context(**{"viewport": DESK, "reduced_motion": "reduce", **options})
        contexts.append(context)
        context.add_init_script(init)
        found = Opened(context.new_page())

        def answer(route: Any) -> None:
            if route.request.url.partition("#")[0] == path.as_uri():
                return route.continue_()
            found.requests.append(route.request.url)
            route.abort()

        context.route(re.compile(r"^(?!data:)"), answer)
        found.page.on("console", lambda message: found.said.append(message.text))
        found.page.on("pageerror", lambda error: found.said.append(str(error)))
        found.page.on("dialog", lambda dialog: (found.dialogs.append(dialog.message), dialog.dismiss()))
        found.page.goto(path.as_uri() + place)
        return found

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's study, whose page is built anew."""
    return build_page(Path(shutil.copytree(DEMO, tmp_path_factory.mktemp("demo") / "study")))


@pytest.fixture(scope="module")
def small(large_study_folder: Path) -> Path:
    """A small invented study with verdicts."""
    return build_page(large_study_folder)


@pytest.fixture(scope="module")
def hostile(study_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose classes, networks, methods, probes, labels and notes have names that would break a careless page."""
    folder = Path(shutil.copytree(study_folder, tmp_path_factory.mktemp("hostile") / "study"))
    script, long, turned, quotes, markup, special = HOSTILE
    renamed = {"vit": quotes + special, "cnn": long + turned, "kd": script + markup, "scramble": markup + turned}

    def rename(value: Any) -> Any:
        if isinstance(value, dict):
            return {rename(key) if key in renamed else key: rename(of) for key, of in value.items()}
        if isinstance(value, list):
            return [rename(of) for of in value]
        return renamed.get(value, value) if isinstance(value, str) else value

    plan = rename(json.loads((folder / "plan.json").read_text()))
    plan["images"]["class_names"] = list(HOSTILE)
    plan["name"] = "".join(HOSTILE)
    (folder / "plan.json").write_text(json.dumps(plan))
    for path in [*folder.glob("runs/*/record.json"), *folder.glob("probes/*/manifest.json")]:
        found = json.loads(path.read_text())
        path.write_text(json.dumps(rename(found) | ({"notes": list(HOSTILE)} if "notes" in found else {})))
    _rename_tables(folder, rename)
    (folder / "failures.json").write_text(json.dumps([{"task": name, "message": name} for name in HOSTILE]))
    return build_page(folder)


def _rename_tables(folder: Path, rename: Callable[[Any], Any]) -> None:
    from crossdistill.compare import read_table, write_table
    from crossdistill.core.records import InheritanceRow, ResultRow

    for name, row_type in (("results", ResultRow), ("inheritance", InheritanceRow)):
        rows: list[Any] = read_table(folder / f"{name}.parquet", row_type)
        write_table([row_type(**rename(row.model_dump())) for row in rows], folder / f"{name}.parquet", row_type)


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_silent_asks_nobody_and_fits_its_window(visit: Open, demo: Path, viewport: dict, scheme: str):
    found = visit(demo, viewport=viewport, color_scheme=scheme)
    found.page.evaluate(UNFOLD)
    assert found.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    found.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    found.page.wait_for_timeout(100)
    assert (found.said, found.requests, found.dialogs) == ([], [], [])


def test_every_chart_is_drawn(visit: Open, demo: Path):
    page = visit(demo).page
    page.evaluate(UNFOLD)
    sizes = page.eval_on_selector_all(
        "main svg.chart",
        """charts => charts.map(chart => [chart.getBoundingClientRect().width, chart.getBoundingClientRect().height,
           [...chart.querySelectorAll("path, line, rect, text")].filter(mark => mark.getBoundingClientRect().width > 1).length])""",
    )
    assert len(sizes) > 5
    assert all(width > 100 and height > 50 and marks > 3 for width, height, marks in sizes), sizes
    empty = page.eval_on_selector_all(
        "main img", "images => images.filter(i => !i.complete && i.loading !== 'lazy' || i.height < 2).length"
    )
    assert empty == 0


def test_a_heading_of_a_table_sorts_it_by_mouse_and_by_keyboard(visit: Open, small: Path):
    page = visit(small).page
    page.evaluate(UNFOLD)
    table = page.locator("#figures table.sortable").first
    head = table.locator("thead th").nth(1)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert (values := _sort_values(table)) == sorted(values)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert (values := _sort_values(table)) == sorted(values, reverse=True)
    assert table.locator("thead th[aria-sort]").count() == 1


def _sort_values(table: Any) -> list[float]:
    """The second column's numbers; rows without one come last and carry none."""
    raw = table.evaluate("table => [...table.tBodies[0].rows].map(row => row.cells[1].dataset.sort ?? null)")
    known = [float(value) for value in raw if value is not None]
    assert raw[len(known) :] == [None] * (len(raw) - len(known))
    return known


def choose(page: Any, **values: str) -> None:
    for fact, value in values.items():
        page.locator(f"select[data-fact={fact}]").select_option(value)


def chosen(page: Any, fact: str) -> str:
    return page.locator(f"select[data-fact={fact}]").input_value()


OF_OTHERS = """fact => [...document.querySelectorAll(`main [data-${fact[0]}]`)].filter(element =>
    element.offsetParent !== null && !element.dataset[fact[0]].split(" ").includes(fact[1])).length"""


def test_the_filter_hides_what_belongs_to_others_and_survives_a_reload(visit: Open, small: Path):
    page = visit(small).page
    page.evaluate(UNFOLD)
    rows = "[...document.querySelectorAll('main tbody tr')].filter(row => row.offsetParent !== null).length"
    before = page.evaluate(rows)
    choose(page, probe="scramble")
    choose(page, pair="1")
    assert page.evaluate(OF_OTHERS, ["probe", "scramble"]) == 0
    assert page.evaluate(OF_OTHERS, ["pair", "1"]) == 0
    hidden = before - page.evaluate(rows)
    assert hidden > 0
    assert page.evaluate(rows) > 0
    assert re.fullmatch(rf"{hidden} table rows( and \d+ other parts?)? hidden", page.locator(".hidden-count").inner_text())
    assert "hidden" in page.locator(".aloud[role=status]").text_content()
    assert page.evaluate("location.hash") == "#&pair=1&probe=scramble"

    page.reload()
    page.evaluate(UNFOLD)
    assert chosen(page, "probe") == "scramble"
    assert before - page.evaluate(rows) == hidden

    page.locator(".rail nav a").last.click()  # a place on the page takes nothing from the filter
    assert page.evaluate("location.hash").endswith("&pair=1&probe=scramble")
    page.get_by_role("button", name="Show all").click()
    assert page.evaluate(rows) == before
    assert "probe" not in page.evaluate("location.hash")


def test_a_link_carries_place_and_filter_and_what_it_does_not_know_is_ignored(visit: Open, small: Path):
    page = visit(small, place="#figures&probe=scramble&method=%E0%A4%A&seed=99").page
    assert chosen(page, "probe") == "scramble"
    assert chosen(page, "pair") == ""
    assert abs(page.evaluate("document.getElementById('figures').getBoundingClientRect().top")) < 100


def test_the_filter_offers_no_choice_where_there_is_none(visit: Open, small: Path):
    page = visit(small).page
    assert not page.locator("select[data-fact=method]").is_visible()  # kd alone
    values = page.locator("select[data-fact=probe]").evaluate("select => [...select.options].map(option => option.value)")
    assert {"localized_noise", "scramble", "superpixel"} < set(values)


INTERVAL = r"[+\u2212]?\d+(\.\d+)?(\u00a0?%)?.* to [+\u2212]?\d"


def test_hovering_near_a_mark_of_a_chart_shows_its_figure_and_interval(visit: Open, small: Path):
    found = visit(small)
    page = found.page
    chart = page.locator("#curves svg.chart:has([aria-label])").first
    chart.scroll_into_view_if_needed()
    mark = chart.locator("path[aria-label]").first
    box = mark.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 + 2, box["y"] + box["height"] / 2 + 1)
    tip = page.get_by_role("tooltip")
    assert tip.is_visible()
    assert re.search(INTERVAL, tip.inner_text()), tip.inner_text()
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    assert found.said == []


def test_arrow_keys_go_through_the_marks_of_a_chart(visit: Open, small: Path):
    page = visit(small).page
    chart = page.locator("#curves svg.chart:has([aria-label])").first
    chart.focus()
    page.keyboard.press("ArrowRight")
    first = page.get_by_role("tooltip").inner_text()
    page.keyboard.press("ArrowRight")
    second = page.get_by_role("tooltip").inner_text()
    assert first
    assert second
    assert first != second
    assert page.locator(".aloud[role=status]").text_content() == second
    assert chart.get_attribute("aria-describedby") == "tip"
    page.keyboard.press("Tab")
    assert not page.get_by_role("tooltip").is_visible()


def test_a_cell_of_the_answer_tells_its_sentence_on_focus_hover_and_tap(visit: Open, small: Path):
    page = visit(small, has_touch=True).page
    cell = page.locator("#answer [data-tip][tabindex='0']").first
    tip = page.get_by_role("tooltip")
    cell.hover()
    assert re.search(INTERVAL, tip.inner_text()), tip.inner_text()
    box = tip.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)  # the tip itself can be pointed at
    page.wait_for_timeout(250)
    assert tip.is_visible()
    page.mouse.move(1, 1)
    page.wait_for_timeout(250)
    assert not tip.is_visible()
    page.locator(".skip").focus()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#answer [data-tip]')"):
            break
    assert tip.is_visible()
    assert page.evaluate("document.activeElement.getAttribute('aria-describedby')") == "tip"
    page.keyboard.press("Escape")
    cell.tap()
    page.wait_for_timeout(250)
    assert tip.is_visible()  # the finger is gone, and the reader has begun


def until(page: Any, condition: str) -> None:
    """Wait for a condition of the page. (Playwright's own wait would need `eval`, which the page forbids.)"""
    from playwright.sync_api import Error

    for _ in range(300):
        with contextlib.suppress(Error):  # where the page is being replaced at this very moment
            if page.evaluate(condition):
                return
        page.wait_for_timeout(50)
    pytest.fail(f"never: {condition}")


def copied(page: Any, table: Any, name: str) -> str:
    page.evaluate("copied.length = 0")
    table.locator("xpath=ancestor::div[@class='table']").get_by_role("button", name=name).click()
    until(page, "copied.length === 1")
    assert page.locator(".aloud[role=status]").text_content() == f"Copied as {name}"
    return page.evaluate("copied[0]")


def test_a_table_is_copied_as_csv_whose_numbers_are_numbers(visit: Open, small: Path):
    page = visit(small).page
    page.evaluate(UNFOLD)
    table = page.locator("#figures table").first
    head, *rows = list(csv.reader(io.StringIO(copied(page, table, "CSV"), newline="")))
    assert {len(row) for row in rows} == {len(head)}
    assert len(rows) == table.locator("tbody tr").count()
    column = head.index(next(name for name in head if name.startswith("teacher vit") and not name.endswith("remark")))
    assert all(re.fullmatch(r"\d+\.\d %", row[column]) for row in rows)
    assert all(re.match(r"\d+\.\d to \d+\.\d", row[column + 1]) for row in rows)
    assert any("curve of 2 levels" in cell for row in rows for cell in row)  # a reason stands beside its number
    assert not re.search("[\u00a0\u2212\u2068\u2069]", "".join(sum(rows, head)))


def test_a_table_is_copied_as_markdown_with_its_reasons(visit: Open, small: Path):
    page = visit(small).page
    page.evaluate(UNFOLD)
    table = page.locator("#figures table").first
    text = copied(page, table, "Markdown")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + table.locator("tbody tr").count()
    assert len({len(re.split(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert set(lines[1]) <= set("| -:")
    assert "[^1]: curve of 2 levels" in text


def test_only_the_rows_that_are_shown_are_copied(visit: Open, small: Path):
    page = visit(small).page
    page.evaluate(UNFOLD)
    choose(page, probe="scramble")
    table = page.locator("#figures table").first
    rows = list(csv.reader(io.StringIO(copied(page, table, "CSV"))))
    assert {row[0] for row in rows[1:]} == {"scramble"}
    shown = table.locator("xpath=ancestor::div[@class='table']").locator(".row-count").inner_text()
    assert re.fullmatch(rf"{len(rows) - 1} of \d+ rows shown", shown)


def test_hostile_names_are_escaped_in_every_format(visit: Open, hostile: Path):
    page = visit(hostile).page
    page.evaluate(UNFOLD)
    table = page.locator("main table.sortable:has-text('a&b%c_d#e$f')").first
    name = "a&b%c_d#e$f{g}~h^i\\j|k"
    assert any(name in cell for row in csv.reader(io.StringIO(copied(page, table, "CSV"))) for cell in row)
    latex = copied(page, table, "LaTeX")
    assert r"a\&b\%c\_d\#e\$f\{g\}\textasciitilde{}h\textasciicircum{}i\textbackslash{}j$|$k" in latex
    body = latex[latex.index(r"\toprule") : latex.index(r"\bottomrule")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines() if line.endswith(r"\\")}) == 1
    assert len(re.findall(r"(?<!\\)\{", latex)) == len(re.findall(r"(?<!\\)\}", latex))
    markdown = copied(page, table, "Markdown")
    assert "a&amp;b%c\\_d\\#e\\$f{g}\\~h^i\\\\j\\|k" in markdown
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in markdown.splitlines() if line.startswith("|")}) == 1


def test_where_the_clipboard_is_refused_the_text_is_marked_and_copied_as_ever(visit: Open, small: Path):
    refused = "Object.defineProperty(navigator, 'clipboard', {value: undefined});"
    caught = "window.copied = []; document.addEventListener('copy', () => copied.push(document.activeElement.value));"
    page = visit(small, init=refused + caught).page
    page.locator("main .tools button").first.click()
    until(page, "copied.length === 1")
    assert page.evaluate("copied[0]").startswith("| ")
    page.evaluate("document.execCommand = () => false")
    page.locator("main .tools button").first.click()
    box = page.locator("dialog textarea")
    assert box.input_value().startswith("| ")
    assert page.evaluate("document.activeElement.selectionEnd") == len(box.input_value())
    page.keyboard.press("Escape")
    assert page.locator("dialog").count() == 0


# Rows and charts are all made alike: the audit of every one of them takes a minute and finds the same.
SHORTEN = """for (const body of document.querySelectorAll("main tbody")) [...body.rows].slice(5).forEach(row => row.remove());
for (const part of document.querySelectorAll(".drawings")) [...part.children].slice(1).forEach(drawing => drawing.remove());"""


@pytest.mark.parametrize(("viewport", "scheme"), [(DESK, "light"), (DESK, "dark"), (PHONE, "light")], ids=["light", "dark", "phone"])
def test_an_audit_of_access_finds_no_serious_fault(visit: Open, small: Path, viewport: dict, scheme: str):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(small, viewport=viewport, color_scheme=scheme).page
    page.evaluate(UNFOLD)
    page.evaluate(SHORTEN)
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [
        f"{fault['id']}: {fault['nodes'][0]['html'][:200]} ({len(fault['nodes'])} places) {fault['nodes'][0].get('failureSummary')}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_headings_go_down_one_step_at_a_time(visit: Open, demo: Path):
    levels = visit(demo).page.eval_on_selector_all("h1, h2, h3, h4, h5", "all => all.map(h => Number(h.tagName[1]))")
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_hostile_names_run_nothing_and_break_nothing(visit: Open, hostile: Path, viewport: dict):
    found = visit(hostile, viewport=viewport)
    page = found.page
    page.evaluate(UNFOLD)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    assert page.evaluate("document.querySelectorAll('[onerror], img[src=x]').length") == 0
    text = page.evaluate("document.body.textContent")
    assert "<script>alert(1)</script>" in text
    assert "[U+202E]evil" in text
    assert not re.search("[\u202a-\u202e]", text)
    assert (found.said, found.requests, found.dialogs) == ([], [], [])


def test_everything_is_there_without_scripts(visit: Open, small: Path):
    found = visit(small, java_script_enabled=False)
    page = found.page
    assert page.locator("main section").count() == page.locator("nav a").count()
    assert page.locator("main section h2").first.is_visible() or page.locator("main section").first.is_visible()
    assert not page.locator("form.view").is_visible()
    assert page.locator("main button").count() == 0
    assert page.locator("#figures table").first.is_visible()
    unfolded = page.locator("main details[open]").count()
    page.locator("main details:not([open]) > summary >> visible=true").first.click()
    assert page.locator("main details[open]").count() == unfolded + 1
    assert (found.said, found.requests) == ([], [])


def test_paper_shows_what_is_folded_and_no_controls(visit: Open, small: Path):
    page = visit(small, color_scheme="dark").page
    assert page.locator("main details:not([open])").count() > 0
    page.emulate_media(media="print")
    unseen = page.eval_on_selector_all(
        "main details", "all => all.flatMap(d => [...d.children].slice(1)).filter(part => part.getBoundingClientRect().height < 1).length"
    )
    assert unseen == 0
    for controls in (".rail", ".tools", "#tip"):
        assert page.locator(controls).first.is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
    page.emulate_media(media="screen")  # a filtered page must say on paper what it leaves out
    choose(page, probe="scramble")
    page.emulate_media(media="print")
    assert "hidden" in page.locator(".hidden-count").inner_text()


def test_the_theme_is_chosen_and_remembered(visit: Open, small: Path):
    page = visit(small, color_scheme="light").page
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.locator("select.theme").select_option("dark")
    dark = page.evaluate(paper)
    assert dark != light
    page.reload()
    assert page.evaluate(paper) == dark
    assert page.locator("select.theme").input_value() == "dark"
    page.locator("select.theme").select_option("")
    assert page.evaluate(paper) == light


def test_the_contents_mark_where_the_reader_is_and_fold_away_on_a_phone(visit: Open, small: Path):
    page = visit(small).page
    page.locator(".rail nav a", has_text="Training").click()
    until(page, "document.querySelector('.rail nav a[aria-current]').textContent === 'Training'")
    phone = visit(small, viewport=PHONE).page
    link = phone.locator(".rail nav a", has_text="Training")
    assert not link.is_visible()
    phone.locator(".rail summary", has_text="Contents").click()
    link.click()
    assert not link.is_visible()
    assert phone.evaluate("document.getElementById('training').getBoundingClientRect().top") < 200


def test_a_long_table_can_be_searched(visit: Open, small: Path):
    page = visit(small).page
    page.evaluate(UNFOLD)
    box = page.locator("main label.search input").first
    table = box.locator("xpath=ancestor::div[@class='table']//table")
    box.fill("superpixel")
    shown = table.locator("tbody tr:not(.searched-out)")
    assert 0 < shown.count() < table.locator("tbody tr").count()
    assert all("superpixel" in text for text in shown.all_inner_texts())


def test_the_page_of_a_running_study_loads_itself_again_and_keeps_the_readers_place(visit: Open, small: Path, tmp_path: Path):
    path, complete = tmp_path / "report.html", small.read_text(encoding="utf-8")
    path.write_text(complete.replace('<html lang="en">', '<html lang="en" data-reload="1">'), encoding="utf-8")
    page = visit(path).page
    assert "loads itself again every 1 s" in page.locator("header").inner_text()
    page.evaluate("document.querySelector('#figures details:not([open])').open = true; scrollTo({top: 1500, behavior: 'instant'})")
    page.evaluate("window.before = true")
    path.write_text(complete, encoding="utf-8")
    until(page, "window.before === undefined && document.readyState === 'complete'")
    assert "loads itself again" not in page.locator("header").inner_text()  # complete: it stands still
    until(page, "Math.abs(scrollY - 1500) < 30")


def test_a_page_that_loads_itself_again_can_be_held(visit: Open, small: Path, tmp_path: Path):
    path = tmp_path / "report.html"
    path.write_text(small.read_text(encoding="utf-8").replace('<html lang="en">', '<html lang="en" data-reload="1">'), encoding="utf-8")
    page = visit(path).page
    page.get_by_role("button", name="Pause").click()
    page.evaluate("window.before = true")
    page.wait_for_timeout(1500)
    assert page.evaluate("window.before") is True
    assert "stands still" in page.locator("header").inner_text()
