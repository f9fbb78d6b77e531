"""What an epoch of a method costs beside one of the same student without a teacher, from the records of their trainings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from crossdistill.core.records import RunRecord
from crossdistill.report.study_files import PlannedPair, StudyFiles
from crossdistill.report.words import count, known, listed, percent


@dataclass(frozen=True)
class EpochCost:
    """Seconds an epoch over the independent's of the same seed: the mean over the seeds, the lowest and the highest."""

    ratio: float
    low: float
    high: float
    n_runs: int
    teacher_share: float | None  # of the steps' seconds; None where it was not measured


def epoch_cost(study: StudyFiles, pair: PlannedPair, method: str) -> EpochCost | None:
    """The cost of a method; None where no run of it has an independent of its seed, or no seconds were recorded."""
    runs = [r for r in study.records if (r.arm, r.student, r.teacher) == (method, pair.student, pair.teacher)]
    ratios = beside_independents(runs, [r for r in study.records if (r.arm, r.student) == ("independent", pair.student)])
    if not ratios:
        return None
    shares = [run.timing["teacher_share"] for run in runs if known(run.timing.get("teacher_share"))]
    return EpochCost(fmean(ratios), min(ratios), max(ratios), len(ratios), fmean(shares) if shares else None)


def beside_independents(runs: Sequence[RunRecord], independents: Sequence[RunRecord]) -> list[float]:
    """Of each run its seconds an epoch over those of the independent of its seed, where both are known."""
    alone = {record.seed: _seconds(record) for record in independents}
    pairs = [(_seconds(run), alone.get(run.seed)) for run in runs]
    return [taught / without for taught, without in pairs if taught and without]


def _seconds(record: RunRecord) -> float | None:
    seconds = record.timing.get("seconds_per_epoch")
    return seconds if known(seconds) else None


def cost_answer(study: StudyFiles) -> str:
    """The cheapest and the dearest method in one sentence."""
    found = [(epoch_cost(study, pair, method), f"{method}, {pair.title}") for pair in study.pairs for method in pair.taught_by]
    costs = sorted((cost.ratio, name) for cost, name in found if cost)
    if not costs:
        return "Of cost this study cannot say anything yet: no method has a finished training beside an independent's."
    (least, cheapest), (most, dearest) = costs[0], costs[-1]
    if f"{least:.2f}" == f"{most:.2f}":
        whose = "every method" if 1 < len(costs) == len(found) else listed([name for _, name in costs])
        return f"An epoch takes {least:.2f} times as long as without a teacher with {whose}."
    return f"An epoch takes {least:.2f} ({cheapest}) to {most:.2f} times ({dearest}) as long as without a teacher."


def cost_lines(study: StudyFiles, pair: PlannedPair, method: str) -> Iterator[str]:
    """The cost of one method in words; nothing where it is not known."""
    if cost := epoch_cost(study, pair, method):
        spread = f", {cost.low:.2f} to {cost.high:.2f} over {count(cost.n_runs, 'run')}" if cost.n_runs > 1 else ", one run"
        share = f"; {percent(cost.teacher_share)} of a step's time for the teacher's answers" if cost.teacher_share is not None else ""
        yield f"{cost.ratio:.2f} times the seconds an epoch without a teacher{spread}{share}"
