"""What fails alone: one student, one teacher with its students, one file of one run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from crossdistill.compare import read_table
from crossdistill.core.errors import CrossdistillError, RunError, SettingError, StudyError
from crossdistill.core.records import ResultRow, RunRecord
from crossdistill.study import workers
from crossdistill.study.damage import past_damage
from crossdistill.study.folder import read_failures
from crossdistill.study.plan import Training

Command = Callable[..., int]


def run_of(out: Path, arm: str, seed: int = 0) -> str:
    records = (RunRecord.load(path.parent) for path in out.glob("runs/*/record.json"))
    return next(record.run for record in records if (record.arm, record.seed) == (arm, seed))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("finished") / "out"


def a_copy(finished: Path, tiny: Path, command: Command, tmp_path: Path) -> Path:
    """A finished study to be damaged, made once."""
    import shutil

    if not finished.exists():
        assert command("study", "run", tiny, "--out", finished, "--quiet") == 0
    return Path(shutil.copytree(finished, tmp_path / "out"))


def test_damaged_answers_are_left_out_named_and_made_again(
    finished: Path, tiny: Path, command: Command, tmp_path: Path, capsys: Any
) -> None:
    out = a_copy(finished, tiny, command, tmp_path)
    run = run_of(out, "kd")
    (path,) = (out / "observations" / run).glob("scramble-*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    assert command("study", "run", tiny, "--out", out, "--quiet") == 1
    said = f"failed: kd: vit -> cnn, seed 0: observations/{run}/{path.name} is damaged and left out of the tables"
    assert said in capsys.readouterr().err
    rows = {(row.run, row.probe) for row in read_table(out / "results.parquet", ResultRow)}
    assert (run, "scramble") not in rows
    assert {(run, "localized_noise"), (run_of(out, "kd", 1), "scramble")} <= rows
    assert f"{path.name} is damaged" in (out / "report.html").read_text()
    assert command("study", "run", tiny, "--out", out, "--quiet") == 0
    assert path.read_bytes() == whole
    assert read_failures(out) == {}


def test_a_damaged_record_fails_its_run_and_the_page_does_without_it(
    finished: Path, tiny: Path, command: Command, tmp_path: Path, capsys: Any
) -> None:
    out = a_copy(finished, tiny, command, tmp_path)
    run = run_of(out, "independent", 1)
    (out / "runs" / run / "record.json").write_text("[]")
    capsys.readouterr()
    assert command("study", "run", tiny, "--out", out, "--quiet", "--jobs", 2) == 1
    assert f"{run}/record.json is damaged: it holds no record. Delete that folder" in capsys.readouterr().err
    assert run not in {row.run for row in read_table(out / "results.parquet", ResultRow)}
    assert f"{run}/record.json is damaged" in (out / "report.html").read_text()
    assert command("report", out) == 0


def test_a_damaged_picture_goes_with_what_says_that_it_is_drawn(tmp_path: Path) -> None:
    from types import SimpleNamespace

    plan: Any = SimpleNamespace(trainings=[SimpleNamespace(run="kd-b", label="kd, seed 0")], ceilings=[])
    for kind, name in (("pictures", "grad_cam.webp"), ("instruments", "grad_cam-1.npz"), ("pictures", "rollout.webp")):
        (tmp_path / kind / "kd-b").mkdir(parents=True, exist_ok=True)
        (tmp_path / kind / "kd-b" / name).write_bytes(b"damaged")
    Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "kd-b" / "rollout.webp")
    failures: dict[str, str] = {}

    def read() -> str:
        if (tmp_path / "pictures" / "kd-b" / "grad_cam.webp").exists():
            raise RunError("grad_cam.webp is damaged")
        return "the page"

    assert past_damage(read, tmp_path, plan, failures) == "the page"
    assert not (tmp_path / "instruments" / "kd-b" / "grad_cam-1.npz").exists()
    assert (tmp_path / "pictures" / "kd-b" / "rollout.webp").exists()
    assert failures["kd, seed 0"].startswith("pictures/kd-b/grad_cam.webp, instruments/kd-b/grad_cam-1.npz are damaged")
    assert json.loads((tmp_path / "failures.json").read_text())[0]["task"] == "kd, seed 0"


def test_damage_elsewhere_is_no_runs_failure(tmp_path: Path) -> None:
    from types import SimpleNamespace

    def read() -> None:
        raise RunError("plan.json is damaged")

    with pytest.raises(RunError, match="plan.json"):
        past_damage(read, tmp_path, SimpleNamespace(trainings=[], ceilings=[]), {})  # type: ignore[arg-type]


def test_a_teacher_that_fails_takes_its_students_and_each_is_named(tiny: Path, command: Command, tmp_path: Path, capsys: Any) -> None:
    tiny.write_text(tiny.read_text().replace("teachers: {runs: 1, epochs: 2}", "teachers: {runs: 1, epochs: 2, learning_rate: 1e39}"))
    out = tmp_path / "out"
    assert command("study", "run", tiny, "--out", out, "--quiet") == 1
    errors, page = capsys.readouterr().err, (out / "report.html").read_text()
    assert "failed: teacher: vit, seed 0: the loss or its gradient was not finite" in errors
    for seed in (0, 1):
        assert f"failed: kd: vit -> cnn, seed {seed}: teacher: vit, seed 0 failed" in errors
        assert f"kd: vit -&gt; cnn, seed {seed}</strong> failed: teacher: vit, seed 0 failed" in page
    assert len(list(out.glob("runs/independent-*/record.json"))) == 2


@pytest.mark.parametrize(
    ("part", "error", "words"),
    [
        ("train", ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero (not foreseen: "),
        ("observe_run", SettingError("out of memory while it was observed"), "out of memory while it was observed"),
        ("observe_run", RunError("clean.npz is damaged"), "clean.npz is damaged"),
    ],
)
def test_whatever_goes_wrong_in_one_training_or_in_observing_it_is_its_own_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, error: Exception, words: str
) -> None:
    found = attempted(tmp_path, monkeypatch, part, error)
    assert type(found) is CrossdistillError
    assert str(found).startswith(words)
    trace = tmp_path / "runs" / "kd-b" / "traceback.txt"
    assert trace.exists() == (part == "train")
    assert not trace.exists() or "ZeroDivisionError: division by zero" in trace.read_text()


@pytest.mark.parametrize("error", [StudyError("cannot write"), OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_no_other_training_would_do_better_ends_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        attempted(tmp_path, monkeypatch, "train", error)


def attempted(out: Path, monkeypatch: pytest.MonkeyPatch, part: str, error: BaseException) -> CrossdistillError | None:
    from types import SimpleNamespace

    def fail(shop: Any, training: Training) -> None:
        raise error

    for name in ("train", "observe_run"):
        monkeypatch.setattr(workers, name, fail if name == part else lambda shop, training: None)
    return workers.attempted(SimpleNamespace(out=out), SimpleNamespace(run="kd-b", label="kd, seed 0"))  # type: ignore[arg-type]
