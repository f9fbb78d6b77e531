"""What stands on the terminal while several trainings run."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from crossdistill.core.progress import Progress
from crossdistill.study import live
from crossdistill.study.live import live_view, run_view, status_table
from crossdistill.study.status import TaskStatus


def row(label: str, state: str, epochs: int = 0, reason: str | None = None, kind: str = "student") -> TaskStatus:
    return TaskStatus(kind, label, label, state, epochs, 4, 0.75 if epochs else None, 10.0 * epochs, reason=reason)  # type: ignore[arg-type]


ROWS = [
    row("kd [bold]: a -> b, seed 0", "done", 4),
    row("kd: a -> b, seed 1", "running", 2),
    row("kd: a -> b, seed 2", "failed", 1, "no [memory]"),
    row("kd: a -> b, seed 3", "waiting"),
]


def drawn(shown: object, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(shown)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_view_shows_what_runs_what_failed_and_how_far_all_is() -> None:
    text = drawn(run_view(ROWS))
    assert "1 of 4 done, 1 failed, 1 running, 1 waiting" in text
    assert "kd: a -> b, seed 1  running  2/4  75.0 %" in text
    assert "failed: kd: a -> b, seed 2: no [memory]" in text
    assert "seed 3" not in text


def test_the_overall_bar_counts_epochs_and_not_what_may_never_run() -> None:
    half = [row("a", "running", 2), row("b", "done", 4), row("c", "waiting"), row("d", "waiting", kind="ceiling"), row("e", "not needed")]
    assert (sum(map(live._size, half)), sum(map(live._done, half))) == (12, 6)


def test_names_are_never_read_as_markup() -> None:
    assert "kd [bold]: a -> b, seed 0" in drawn(status_table(ROWS))


def test_where_there_is_no_room_what_runs_and_what_failed_comes_first() -> None:
    text = drawn(status_table(ROWS, most=2))
    assert "seed 1" in text
    assert "seed 2" in text
    assert "seed 3" not in text
    assert "... and 2 more" in text
    assert "1 of 4 done" in text  # of all


@pytest.mark.parametrize(("interactive", "several"), [(False, True), (True, False)])
def test_without_a_terminal_or_with_one_training_at_a_time_nothing_is_drawn(tmp_path: Path, interactive: bool, several: bool) -> None:
    progress = Progress()
    progress.interactive = interactive
    with live_view(tmp_path, tmp_path, progress, several=several):
        assert (progress.interactive, progress.viewed) == (interactive, False)


def test_the_view_takes_the_place_of_bars_and_ends_with_the_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress()
    progress.interactive = True
    seen = []

    def interrupted() -> None:
        with live_view(tmp_path, tmp_path, progress, several=True):
            seen.append((progress.interactive, progress.viewed))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seen == [(False, True)]
    assert (progress.interactive, progress.viewed) == (True, False)


def test_a_folder_that_cannot_be_read_for_a_moment_ends_no_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view = live._View(tmp_path, tmp_path)
    monkeypatch.setattr(live, "read_rows", lambda folder, store: ROWS)
    before = drawn(view)
    monkeypatch.undo()  # there is no study in that folder
    assert drawn(view) == before
