"""Colour invariance passes from a teacher to students of its own family: what `studies/colour_invariance.yaml` gave.

    crossdistill study run studies/colour_invariance.yaml --out DIR
    python benchmarks/colour_control.py --study DIR --name "CIFAR-10, JPEG copy"

Ojha et al. (NeurIPS 2023, section 4.3) on ImageNet, shares of answers that a change of colour leaves as they were: teacher 92.5 %,
independents 71.3 %, students by kd 82.1 %, students of a teacher without colour training 74 %. Here, from what the study's networks
answered: the share of answers kept (agreement) and its kappa, the same corrected for chance, under each probe of colour, for every arm:
means with Student's t over runs. Differences and verdicts are those of `inheritance_table`; those of the plain agreement, which has no
place in it, are Welch's on run means too.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from crossdistill.compare import ObservedRun, Pair, inheritance_table, results_table
from crossdistill.core.observations import stored_observations
from crossdistill.core.records import RunRecord
from crossdistill.core.study_file import read_study
from crossdistill.stats import welch
from positive_controls import shown
from protocol import save_result

PROBES = ("hue", "grayscale")
CLEAN = ("clean", "", 0)
Runs = Mapping[str, Sequence[ObservedRun]]


def runs_of(study: Path) -> list[ObservedRun]:
    """The finished runs of a study's folder, with what they answered."""
    found = []
    for folder in sorted(path.parent for path in (study / "runs").glob("*/record.json")):
        answers = {}
        for file in sorted((study / "observations" / folder.name).glob("*.npz")):
            probe = next((name for name in PROBES if file.name.startswith(name)), "clean")
            answers |= {(probe, level, draw): seen for (level, draw), seen in stored_observations(file).items()}
        found.append(ObservedRun(RunRecord.load(folder), answers))
    return found


def by_arm(runs: Sequence[ObservedRun]) -> Runs:
    """The runs by what they are: "teacher jittered", "independent", "kd", "kd+control_teacher"."""
    arms = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.record.seed):
        arms[f"teacher {run.record.student}" if run.record.arm == "teacher" else run.record.arm].append(run)
    return arms


def agreements(run: ObservedRun) -> dict[str, float]:
    """{probe and level: share of answers that are those to the clean images}."""
    clean = run.observations[CLEAN]
    decided = dict(zip(clean.index.tolist(), clean.decisions.tolist(), strict=True))
    return {
        f"{probe} {level}": float(np.mean([decided[row] == answer for row, answer in zip(seen.index, seen.decisions, strict=True)]))
        for (probe, level, _), seen in run.observations.items()
        if probe in PROBES
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean with Student's t over runs, and the runs."""
    if len(values) < 2:
        return {"runs": list(values)}
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return {
        "mean": float(np.mean(values)),
        "low": float(np.mean(values) - half),
        "high": float(np.mean(values) + half),
        "runs": list(values),
    }


def minus(students: Sequence[float], controls: Sequence[float]) -> dict[str, float]:
    found = welch(np.array(students), np.array(controls))
    return {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--study", type=Path, required=True, help="folder of the finished study")
    parser.add_argument("--name", required=True, help="what the result calls the images")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    runs, study = runs_of(chosen.study), read_study(chosen.study / "study.yaml")
    pairs = [
        Pair(i, pair.teacher, pair.student, tuple(m.arm for m in pair.methods), pair.control_teacher) for i, pair in enumerate(study.pairs)
    ]
    arms = by_arm(runs)
    kept = {arm: [agreements(run) for run in of] for arm, of in arms.items()}
    levels = list(kept["independent"][0])
    results = results_table(runs, pairs)
    kappas = {
        (row.run, f"{row.probe} {row.level}"): row.value for row in results if row.metric == "agreement_kappa" and row.value is not None
    }
    rows = [r for r in inheritance_table(results, runs, pairs, []) if r.probe in PROBES and r.metric == "agreement_kappa"]
    agreement = {level: {arm: [of_run[level] for of_run in of] for arm, of in kept.items()} for level in levels}
    against = {level: {arm: minus(of["kd"], of[arm]) for arm in ("independent", "kd+control_teacher")} for level, of in agreement.items()}
    save_result(
        "positive_control_colour",
        {
            "images": chosen.name,
            "study": study.model_dump(mode="json", include={"seeds", "training", "teachers", "pairs"}, exclude_defaults=True),
            "training_images": study.images.train_images,
            "clean_accuracy": {arm: spread([_accuracy(run) for run in of]) for arm, of in arms.items()},
            "agreement": {level: {arm: spread(values) for arm, values in of.items()} for level, of in agreement.items()},
            "agreement_kappa": {
                level: {arm: spread([kappas[run.record.run, level] for run in of]) for arm, of in arms.items()} for level in levels
            },
            "students_minus": against,
            "inheritance_of_agreement_kappa": {f"{r.probe} {r.level_or_auc}, against {r.contrast}": shown(r) for r in rows},
            "checks": {
                "kappa_is_inherited_under_every_probe": all(r.verdict == "inherited" for r in rows if r.contrast == "independent"),
                "more_answers_kept_than_independents": all(of["independent"]["low"] > 0 for of in against.values()),
                "more_answers_kept_than_students_of_the_control_teacher": all(
                    of["kd+control_teacher"]["low"] > 0 for of in against.values()
                ),
            },
        },
    )


def _accuracy(run: ObservedRun) -> float:
    seen = run.observations[CLEAN]
    return float((seen.decisions == seen.labels).mean())


if __name__ == "__main__":
    main()
