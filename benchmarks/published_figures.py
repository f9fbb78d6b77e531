"""Published decisions of people and networks on the cue-conflict images, read by this package: are the published figures found?

    python benchmarks/published_figures.py FOLDER

FOLDER holds `decisions.csv.gz` (columns subject, image_id, shape, texture, decision), as published by Geirhos et al. (2019), Geirhos,
Meding and Wichmann (2020) and Tuli et al. (2021), and `expected.json` with the figures that their own scripts give. Every subject's shape
bias and error consistency with every other is computed by `crossdistill.functional`, and by the command `evaluate --decisions`.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import duckdb
import numpy as np

from crossdistill.functional import error_consistency, shape_bias
from crossdistill.study.decisions import evaluate_decisions
from protocol import save_result

SHOWN = {"ec/alexnet", "ec/resnet50", "ec/bagnet33", "tvs/vgg", "tuli/ViT-B_32"}

Decisions = Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]  # subject -> decisions, shapes, textures, all in the order of images


def read(folder: Path) -> Decisions:
    """The decisions of every subject. 'na', a person's time-out, is an answer like any other that names no cue."""
    table = duckdb.sql(f"select * from read_csv('{folder / 'decisions.csv.gz'}', all_varchar=true) order by subject, image_id").fetchnumpy()
    subjects = np.asarray(table["subject"])
    columns = [np.asarray(table[name]).astype(str) for name in ("decision", "shape", "texture")]
    found = {}
    for subject in np.unique(subjects):
        decisions, shapes, textures = (column[subjects == subject] for column in columns)
        found[str(subject)] = decisions, shapes, textures
    return found


def biases(decisions: Decisions) -> dict[str, dict[str, Any]]:
    """Shape bias with its interval, by subject."""
    found = {subject: shape_bias(*of) for subject, of in decisions.items()}
    return {subject: {"value": bias.value, "low": bias.low, "high": bias.high, "n": bias.n} for subject, bias in found.items()}


def consistencies(decisions: Decisions, subjects: list[str]) -> dict[tuple[str, str], float | None]:
    """Error consistency of each two subjects; a decision is right where it names the shape."""
    right = {subject: decisions[subject][0] == decisions[subject][1] for subject in subjects}
    return {(a, b): error_consistency(right[a], right[b]).value for a, b in combinations(sorted(subjects), 2)}


def like_people(decisions: Decisions, people: list[str]) -> dict[str, float]:
    """Mean error consistency of each shown network with the people."""
    right = {subject: of[0] == of[1] for subject, of in decisions.items()}
    return {name: fmean(error_consistency(right[name], right[person]).value or 0.0 for person in people) for name in sorted(SHOWN)}


def largest(differences: list[float]) -> float:
    return max(abs(difference) for difference in differences)


def by_command(folder: Path, expected: Mapping[str, Any]) -> float:
    """The largest difference of the shape biases that `crossdistill evaluate --decisions` writes."""
    with tempfile.TemporaryDirectory() as out:
        rows = evaluate_decisions(folder / "decisions.csv.gz", out=Path(out)).results
    found = {row.student: row.value for row in rows if row.metric == "shape_bias"}
    return largest([(found[subject] or 0.0) - facts["shape_bias"] for subject, facts in expected["subjects"].items()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    decisions, expected = read(folder), json.loads((folder / "expected.json").read_text())
    found, people = biases(decisions), [subject for subject in decisions if subject.startswith("human/")]
    named = expected["subjects"]
    kappas = consistencies(decisions, sorted({name for a, b, *_ in expected["pairs"] for name in (a, b)}))
    pairs = {tuple(sorted((a, b))): kappa for a, b, *_, kappa in expected["pairs"]}
    save_result(
        "published_figures",
        {
            "subjects": len(decisions),
            "images": len(next(iter(decisions.values()))[0]),
            "people": {"n": len(people), "mean_shape_bias": fmean(found[person]["value"] for person in people)},
            "shape_bias": {subject: bias for subject, bias in found.items() if subject in SHOWN},
            "mean_error_consistency_with_people": like_people(decisions, people),
            "largest_difference": {
                "shape_bias": {
                    "subjects": len(named),
                    "by": largest([found[name]["value"] - of["shape_bias"] for name, of in named.items()]),
                },
                "shape_bias_by_command": {"subjects": len(named), "by": by_command(folder, expected)},
                "error_consistency": {"pairs": len(pairs), "by": largest([(kappas[pair] or 0.0) - kappa for pair, kappa in pairs.items()])},
            },
        },
    )


if __name__ == "__main__":
    main()
