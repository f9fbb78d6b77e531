"""Tables and page while a study runs: seldom enough, and never lost."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crossdistill.core.errors import CrossdistillError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.study import interim
from crossdistill.study.interim import FIRST_AFTER, SHARE, Interim
from crossdistill.study.phases import PHASES_FILE, Phases, seconds_of_writing
from crossdistill.study.plan import Training
from crossdistill.study.trainings import TrainingSchedule


def test_interim_tables_take_about_a_hundredth_of_the_time(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interim, "Stopwatch", clock.stopwatch)
    written = []

    def write(failures: dict[str, str]) -> None:
        written.append((clock.now, dict(failures)))
        clock.now += 5.0

    tables = Interim(write)
    while clock.now < 20_000:
        clock.now += 10.0
        tables({"kd": "failed"})
    assert written[0] == (FIRST_AFTER, {"kd": "failed"})
    assert 5.0 * len(written) / clock.now <= SHARE * 1.1
    assert len(written) > 20_000 / (5.0 / SHARE + 30)


def test_a_study_that_goes_on_keeps_to_that_share_from_its_start(clock: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(interim, "Stopwatch", clock.stopwatch)
    assert Interim(print, seconds_of_writing(tmp_path)).wait == FIRST_AFTER
    phases = Phases()
    phases.seconds |= {"tables": 4.0, "page": 1.0, "trainings": 1000.0}
    phases.write(tmp_path, executor="local", jobs=1)
    written = []
    tables = Interim(written.append, seconds_of_writing(tmp_path))
    for now in (FIRST_AFTER + 1, 5.0 / SHARE - 1, 5.0 / SHARE + 1):
        clock.now = now
        tables({})
        assert len(written) == (now > 5.0 / SHARE)
    (tmp_path / PHASES_FILE).write_text("{")  # it is written anew with the next tables
    assert Interim(print, seconds_of_writing(tmp_path)).wait == FIRST_AFTER


def test_a_schedule_tells_after_each_but_the_last(tmp_path) -> None:
    told: list[dict[str, str]] = []
    trainings = [Training(f"kd{i}", "cnn", 0, TrainingConfig(), key=str(i)) for i in range(3)]
    shop = SimpleNamespace(out=tmp_path)
    schedule = TrainingSchedule(
        shop, SimpleNamespace(trainings=trainings, ceilings=()), trainings, {}, after_each=lambda f: told.append(dict(f))
    )  # type: ignore[arg-type]
    for place, training in enumerate(trainings):
        assert schedule.next() is training
        schedule.settle(training, CrossdistillError("no memory") if place == 0 else None)
    assert told == [{"kd0: cnn, seed 0": "no memory"}] * 2
