"""A study published without weights and logits: what is left of it, and how its readers go on."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crossdistill.compare import read_table
from crossdistill.core.records import GainRow, InheritanceRow, ResultRow, RunRecord, SimilarityRow, TransferRow
from crossdistill.core.store import locked, write_atomically
from crossdistill.report.page import render
from crossdistill.report.sections import gallery
from crossdistill.report.study_files import read_study
from crossdistill.study import execute, observing, publish, tasks

Command = Callable[..., int]

NO_ROOM = re.compile(r"<p[^>]*>[^<]* found no room on this page[^<]*</p>")
TABLES = {"results": ResultRow, "inheritance": InheritanceRow, "transfer": TransferRow, "similarity": SimilarityRow, "gains": GainRow}


def tables(out: Path) -> dict[str, list[Any]]:
    return {name: read_table(out / f"{name}.parquet", row) for name, row in TABLES.items()}


def runs(out: Path, arm: str) -> list[str]:
    return sorted(path.name for path in (out / "runs").glob(f"{arm}-*"))


@pytest.fixture(autouse=True)
def plain_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a test is not about the page, none is drawn: that takes a second."""

    def written(folder: Path) -> Path:
        (folder / "report.html").write_text("page")
        return folder / "report.html"

    if "page" not in request.node.name:
        for module in (publish, execute):
            monkeypatch.setattr(module, "build_page", written)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one test has run the study, which others copy."""
    return tmp_path_factory.mktemp("finished")


@pytest.fixture
def study(tiny: Path, finished: Path, command: Command, tmp_path: Path) -> Path:
    """A finished study with instruments, in a folder of its own."""
    text = tiny.read_text().replace("instruments: []", "instruments: [features, attention_distance], instrument_images: 40")
    tiny.write_text(text.replace("{grid: 2}, {grid: 4}, {grid: 8}", "{grid: 2}, {grid: 4}"))
    if not (finished / "report.html").exists():
        assert command("study", "run", tiny, "--out", finished, "--quiet", "--store", finished.parent / "store") == 0
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of what was trained or loaded to be observed since."""
    done: list[str] = []
    train, load = tasks._train, observing.load_trained

    def noted_train(shop: Any, training: Any, *arguments: Any) -> Any:
        done.append(training.label)
        return train(shop, training, *arguments)

    def noted_load(shop: Any, training: Any, *arguments: Any) -> Any:
        done.append(f"observed {training.label}")
        return load(shop, training, *arguments)

    monkeypatch.setattr(tasks, "_train", noted_train)
    monkeypatch.setattr(observing, "load_trained", noted_load)
    return done


def published(study: Path, command: Command, name: str = "published") -> Path:
    target = study.parent / name
    assert command("study", "publish", study, target) == 0
    return target


def go_on(folder: Path, command: Command, file: Path | None = None) -> int:
    return command("study", "run", file or folder / "study.yaml", "--out", folder, "--store", folder.parent / "empty")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def without_drawings(page: str) -> str:
    return re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)


def test_a_publication_holds_what_a_reader_needs_and_nothing_large(study: Path, command: Command, capsys: Any) -> None:
    target = published(study, command)
    line = capsys.readouterr().out
    assert line.startswith(f"{target}: ")
    assert line.endswith(" MB, 5 networks\n")
    names = set(contents(target))
    assert {"study.yaml", "plan.json", "failures.json", "phases.json", "report.html", *(f"{name}.parquet" for name in TABLES)} <= names
    for run in runs(study, ""):
        assert {f"runs/{run}/record.json", f"runs/{run}/log.jsonl", f"decisions/{run}.npz"} <= names
    assert any(name.startswith("pictures/kd-") for name in names)
    assert any(name.endswith("preview.png") for name in names)
    folders = {name.split("/")[0] for name in names}
    assert not folders & {"observations", "predictions", "instruments", "timings"}
    assert not any(name.endswith("safetensors") or "/." in f"/{name}" for name in names)


def test_pictures_for_which_the_page_has_no_room_are_not_published(study: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def pictured(folder: Path) -> set[str]:
        return {path.parent.name for path in (folder / "pictures").glob("*/gained-*.webp")}

    assert pictured(published(study, command, "roomy")) == pictured(study) == set(runs(study, "kd"))
    assert len(runs(study, "kd")) > 1
    monkeypatch.setattr(gallery, "ROOM", 4_000)
    target = published(study, command, "elsewhere/out")  # the page names its folder
    assert len(pictured(target)) == 1
    page = without_drawings(render(read_study(study)))
    assert NO_ROOM.search(page)
    assert NO_ROOM.sub("", page) == NO_ROOM.sub("", without_drawings(render(read_study(target))))


def test_the_page_is_drawn_from_the_publication_alone_and_is_that_of_the_study(study: Path, command: Command) -> None:
    target = published(study, command, "elsewhere/out")  # the page names its folder
    shutil.rmtree(study / "observations")
    page = (target / "report.html").read_text(encoding="utf-8")
    assert without_drawings(page) == without_drawings(render(read_study(study)))
    assert command("report", target) == 0
    assert without_drawings((target / "report.html").read_text(encoding="utf-8")) == without_drawings(page)


def test_a_reader_with_an_empty_store_trains_nothing_and_has_the_same_tables(
    study: Path, command: Command, trained: list[str], capsys: Any
) -> None:
    target, before = published(study, command), tables(study)
    for file in ("inheritance.parquet", "report.html"):
        os.utime(target / file, (0, 0))  # as git leaves them

    def left() -> list[str]:
        capsys.readouterr()
        command("study", "plan", target / "study.yaml", "--out", target, "--json", "--store", target.parent / "empty")
        return [node["kind"] for node in json.loads(capsys.readouterr().out)["graph"] if node["state"] == "left"]

    assert left() == ["probe", "probe"]  # which are in the store that made them
    assert {"confidence", "fidelity_kl", "mean_attention_distance_layer1"} <= {
        row.metric for row in before["results"] if row.value is not None
    }
    assert before["similarity"]
    pictures = contents(target / "pictures")
    assert go_on(target, command) == 0
    assert trained == []
    for name, rows in tables(target).items():
        assert rows == before[name], name
    assert contents(target / "pictures") == pictures
    assert not (target / "observations").exists()
    assert left() == []
    command("study", "status", target, "--json", "--store", target.parent / "empty")
    assert {row["state"] for row in json.loads(capsys.readouterr().out)} == {"done"}


@pytest.mark.parametrize("arm", ["independent", "kd"])
def test_a_run_that_is_deleted_is_trained_and_nothing_else(
    study: Path, command: Command, trained: list[str], arm: str, capsys: Any
) -> None:
    target, before = published(study, command), tables(study)
    run = runs(target, arm)[0]
    label = RunRecord.load(target / "runs" / run).label
    shutil.rmtree(target / "runs" / run)
    (target / "decisions" / f"{run}.npz").unlink()
    assert go_on(target, command) == 0
    again = "training teacher: vit, seed 0 again, since its weights are needed and only its record is here"
    told, first = capsys.readouterr().err, "only their record is here are trained again: teacher: vit, seed 0 ("
    assert (again in told) == (first in told) == (arm == "kd")
    assert trained == [*(["teacher: vit, seed 0"] if arm == "kd" else []), label, f"observed {label}"]
    for name, rows in tables(target).items():
        assert rows == before[name], name


def test_a_student_that_is_added_is_compared_with_its_teacher_in_full(
    study: Path, tiny: Path, command: Command, trained: list[str]
) -> None:
    target = published(study, command)
    tiny.write_text(tiny.read_text().replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    assert go_on(target, command, tiny) == 0
    networks = ["teacher: vit, seed 0", "independent: cnn, seed 2", "kd: vit -> cnn, seed 2"]
    assert trained == [word for label in networks for word in (label, f"observed {label}")]
    rows = tables(target)["results"]
    assert {row.seed for row in rows if row.metric == "fidelity_kl" and row.arm == "kd" and row.value is not None} == {0, 1, 2}
    # Whether a probe passes its signal gate is asked of all networks, the new one among them.
    before = [row for row in tables(study)["results"] if row.metric in ("confidence", "fidelity_kl", "js_invariance")]
    assert {row.model_dump_json(exclude={"signal_gate"}) for row in before} <= {
        row.model_dump_json(exclude={"signal_gate"}) for row in rows
    }


def test_a_probe_that_is_added_needs_every_network_again(study: Path, tiny: Path, command: Command, tried: list[str], capsys: Any) -> None:
    target = published(study, command)
    before = contents(target)
    tiny.write_text(tiny.read_text().replace("localized_noise]", "localized_noise, grayscale]"))
    capsys.readouterr()
    assert command("study", "plan", tiny, "--out", target, "--json", "--store", target.parent / "empty") == 0
    states = {row["label"]: row["state"] for row in json.loads(capsys.readouterr().out)["trainings"]}
    assert len(states) == 5
    assert set(states.values()) == {"left"}
    assert contents(target) == before  # a plan writes nothing


def test_the_same_call_completes_a_killed_one_and_takes_away_what_is_gone(
    study: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(published(study, command, "whole"))
    left = [5]

    def write(*arguments: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        write_atomically(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(publish, "write_atomically", write)
        assert command("study", "publish", study, study.parent / "killed") == 130
    (study.parent / "killed" / ".plan.json.half").write_text("{")
    (study.parent / "killed" / "README.md").write_text("of whoever published it")
    assert contents(published(study, command, "killed")) == whole | {"README.md": b"of whoever published it"}
    gone = runs(study, "kd")[0]
    shutil.rmtree(study / "runs" / gone)
    assert not any(gone in name for name in contents(published(study, command, "killed")))
    assert contents(published(study.parent / "whole", command, "copy")) == whole  # a publication is published as any folder is


def test_what_cannot_be_published_is_told(study: Path, command: Command, tmp_path: Path, capsys: Any) -> None:
    def refusal(*arguments: object) -> str:
        assert command("study", "publish", *arguments) == 2
        return capsys.readouterr().err

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("")
    assert "holds no study" in refusal(tmp_path / "other", tmp_path / "new")
    assert "holds no publication" in refusal(study, tmp_path / "other")
    assert "is a file" in refusal(study, tmp_path / "other" / "thesis.txt")
    assert "one in the other" in refusal(study, study / "published")
    shutil.copytree(study, tmp_path / "worked")
    assert "which no publication does" in refusal(study, tmp_path / "worked")
    (tmp_path / "worked" / "study.yaml").write_text("name: another")
    assert "holds another study (name: another, not tiny)" in refusal(study, tmp_path / "worked")
    with locked(study, "held"):
        assert "a study is running in" in refusal(study, tmp_path / "new")
    shutil.rmtree(study / "runs")
    assert "nothing is finished in" in refusal(study, tmp_path / "new")
    assert not (tmp_path / "new").exists()
