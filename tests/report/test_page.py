"""The whole page, from study folders that are finished, half finished, hostile and empty."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from crossdistill.core.errors import StudyError
from crossdistill.report.page import build_page

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects what a page shows and refers to, and checks that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.scripts = 0
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.scripts += tag == "script"
        assert not [name for name, _ in attrs if name.startswith("on")], f"{tag} carries an event handler"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text.append(data)


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert not reader.open
    return reader


@pytest.fixture
def folder(study_folder: Path, tmp_path: Path) -> Path:
    """A copy of the finished study that a test may spoil."""
    return Path(shutil.copytree(study_folder, tmp_path / "study"))


@pytest.fixture(scope="module")
def page(study_folder: Path) -> Reader:
    return read(build_page(study_folder))


def words(reader: Reader) -> str:
    return re.sub(r"\s+", " ", " ".join(reader.text))


def test_the_page_needs_no_other_file_and_no_network(page: Reader, study_folder: Path):
    assert all(address.startswith(("#", "data:image/webp;base64,")) for address in page.addresses)
    assert sum(address.startswith("data:") for address in page.addresses) == 3
    text = (study_folder / "report.html").read_text(encoding="utf-8")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    # Addresses elsewhere are names of XML vocabularies, which nobody fetches.
    assert set(re.findall(r"https?://[^\"'\s<]+", text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_the_answer_comes_before_everything_else(page: Reader):
    text = words(page)
    order = [
        "shape-and-texture",
        "What do students take over",
        "Answer",
        "From this teacher checkpoint",
        "All figures",
        "Accuracy by level",
    ]
    order += ["What the probes show", "Training", "Cost", "The raw ratio", "Provenance"]
    places = [text.find(part, text.find("Provenance") + 1 if i > 2 else 0) for i, part in enumerate(order)]
    assert -1 not in places
    assert places == sorted(places)


def test_two_seeds_give_no_verdict_and_the_page_says_so(page: Reader):
    text = words(page)
    assert "With 2 runs an arm, differences are reported but no verdict of inheritance is possible" in text
    assert not re.search(r"\bInherited\b|\bMoved away\b|\bNo difference\b", text)


def test_a_table_that_claims_too_much_is_not_believed(folder: Path):
    from crossdistill.compare import read_table, write_table
    from crossdistill.core.records import InheritanceRow

    rows = read_table(folder / "inheritance.parquet", InheritanceRow)
    write_table([row.model_copy(update={"verdict": "inherited"}) for row in rows], folder / "inheritance.parquet")
    assert "Inherited" not in words(read(build_page(folder)))


def test_six_seeds_with_a_teacher_each_may_say_inherited(large_study_folder: Path):
    text = words(read(build_page(large_study_folder)))
    assert "Inherited" in text
    assert "teacher checkpoint" not in text
    assert "no verdict" not in text


def test_no_number_is_missing_its_value(page: Reader):
    text = words(page)
    assert not re.search(r"\b(nan|inf|None(?! of \d)|null|undefined)\b", text, flags=re.IGNORECASE)


def test_not_a_number_in_a_table_is_called_not_measurable(folder: Path):
    from crossdistill.compare import read_table, write_table
    from crossdistill.core.records import ResultRow

    rows = read_table(folder / "results.parquet", ResultRow)
    broken = [
        row.model_copy(update={"value": float("nan"), "low": None, "high": None}) if row.metric == "retention" else row for row in rows
    ]
    write_table(broken, folder / "results.parquet")
    text = words(read(build_page(folder)))
    assert "not measurable" in text
    assert not re.search(r"\bnan\b", text, flags=re.IGNORECASE)


def test_hostile_class_names_are_shown_as_text(page: Reader):
    assert page.scripts == 1
    assert "circle, square, star, ring, <script>alert(1)</script>" in words(page)


def test_hostile_names_anywhere_do_no_harm(folder: Path):
    evil = '"><script>alert(1)</script>'
    plan = json.loads((folder / "plan.json").read_text())
    plan["name"] = evil
    plan["pairs"][0]["methods"].append(evil)
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "study.yaml").write_text(f"name: {evil}\n</code></pre>{evil}")
    (folder / "failures.json").write_text(json.dumps([{"task": evil, "message": evil}]))
    for path in folder.glob("runs/teacher*/record.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "notes": [evil], "student": evil, "software": {evil: evil}, "plugins": {evil: evil}}))
    for path in folder.glob("probes/*/manifest.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "isolates": evil, "level_names": [evil]}))
    reader = read(build_page(folder))
    assert reader.scripts == 1
    assert all(address.startswith(("#", "data:")) for address in reader.addresses)


def test_the_script_that_runs_is_the_only_one_the_page_allows(page: Reader, study_folder: Path):
    text = (study_folder / "report.html").read_text(encoding="utf-8")
    policy = re.search(r"http-equiv=\"Content-Security-Policy\" content=\"([^\"]*)\"", text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    import base64
    import hashlib

    script = re.search(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    assert script is not None
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()}'" in policy[1]


def test_no_id_stands_twice_and_every_link_leads_somewhere(page: Reader):
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)


def test_the_page_stays_small(study_folder: Path, page: Reader):
    assert (study_folder / "report.html").stat().st_size < 1_000_000  # 5 MB is the promise for a study six times as large


def test_the_same_records_give_the_same_page(folder: Path):
    first = build_page(folder).read_bytes()
    assert build_page(folder).read_bytes() == first


def test_notes_of_the_networks_are_told_in_words(page: Reader):
    assert "Teacher cnn: It answers 99.8 % of its training images rightly and surely" in words(page)


def test_the_raw_ratio_is_marked_as_not_to_be_trusted(page: Reader):
    assert "Do not trust these numbers." in words(page)


def test_provenance_says_how_to_run_it_again(folder: Path):
    text = words(read(build_page(folder)))
    assert "crossdistill study run study/study.yaml --out study" in text
    assert "0a1b2c3d4e5f6071" in text
    assert "seeds: [0, 1]" in text


def test_an_unfinished_study_shows_what_is_there_and_names_what_is_not(folder: Path):
    (folder / "inheritance.parquet").unlink()
    shutil.rmtree(folder / "runs" / "kd-cnn-1")
    (folder / "failures.json").write_text(json.dumps([{"task": "kd: vit -> cnn, seed 1", "message": "the loss is not finite"}]))
    text = words(read(build_page(folder)))
    assert "This study is not finished." in text
    assert "1 of 10 networks are not finished: kd: vit -> cnn, seed 1." in text
    assert "the loss is not finite" in text
    assert "Students and independents have not been compared yet" in text
    assert "localized noise" in text


def test_a_study_that_has_only_been_planned_has_a_page(folder: Path):
    for name in ("runs", "probes"):
        shutil.rmtree(folder / name)
    for name in ("results.parquet", "inheritance.parquet"):
        (folder / name).unlink()
    text = words(read(build_page(folder)))
    assert "Nothing has been compared yet." in text
    assert "10 of 10 networks are not finished" in text


def test_a_plan_of_another_age_with_few_keys_is_enough(folder: Path):
    (folder / "plan.json").write_text("{}")
    text = words(read(build_page(folder)))
    assert "vit → cnn" in text  # from the inheritance table


def test_a_folder_without_a_study_is_refused(tmp_path: Path):
    with pytest.raises(StudyError, match="holds no study"):
        build_page(tmp_path)


def test_the_report_imports_neither_torch_nor_the_chart_library_before_it_draws():
    code = (
        "import sys, crossdistill.report.page; print(sorted({'torch', 'torchvision', 'timm', 'altair', 'vl_convert'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
