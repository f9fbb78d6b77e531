"""Tables and page while a study runs: seldom enough, and never lost."""

from types import SimpleNamespace

from crossdistill.core.errors import CrossdistillError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.study.interim import FIRST_AFTER, SHARE, Interim
from crossdistill.study.plan import Training
from crossdistill.study.trainings import TrainingSchedule


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def stopwatch(self) -> "Watch":
        return Watch(self)


class Watch:
    def __init__(self, clock: Clock) -> None:
        self.clock, self.start = clock, clock.now

    @property
    def seconds(self) -> float:
        return self.clock.now - self.start


def test_interim_tables_take_about_a_hundredth_of_the_time() -> None:
    clock, written = Clock(), []

    def write(failures: dict[str, str]) -> None:
        written.append((clock.now, dict(failures)))
        clock.now += 5.0

    interim = Interim(write, clock=clock.stopwatch)  # type: ignore[arg-type]
    while clock.now < 20_000:
        clock.now += 10.0
        interim({"kd": "failed"})
    assert written[0] == (FIRST_AFTER, {"kd": "failed"})
    assert 5.0 * len(written) / clock.now <= SHARE * 1.1
    assert len(written) > 20_000 / (5.0 / SHARE + 30)


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
