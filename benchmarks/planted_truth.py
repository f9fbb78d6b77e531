"""Networks whose bias is planted, on images whose cues are known exactly: the figures must tell what was planted.

    python benchmarks/planted_truth.py --out DIR

Trained for each seed on trifeature, with every other feature drawn at random: a network whose images leave it shape as the only cue (bias
at least 0.90 on cue-conflict images), one with texture as the only cue (at most 0.10), and a bag of patches, which classifies
every patch of 8 pixels alone and averages the logits: when whole patches change places its logits stay to 1e-5 and its retention
is 1 exactly. The texture reader, trained on the same images with the same cue, shows that this is not so of any network.

Not trained: a constant predictor, of which nothing may be measured that would mean something; and a student that is its teacher, which
sides with it always. Intervals are Wilson's over images. DIR is shared with `positive_controls.py`, whose teachers these are.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bag_of_patches import bag_of_patches
from crossdistill.compare import ObservedRun, Pair, results_table
from crossdistill.core.progress import Progress
from crossdistill.core.records import ResultRow
from crossdistill.core.types import Estimate, ImageSet, Observations
from crossdistill.metrics.cue_bias import cue_bias
from crossdistill.metrics.retention import retention
from crossdistill.metrics.shape_bias import shape_bias
from crossdistill.metrics.side_with_teacher import side_with_teacher
from crossdistill.observe import observe
from crossdistill.ops.network import Network
from crossdistill.probes.scramble import scramble
from positive_controls import MODEL, RECIPE, SIDE, STUDENT, TEACHERS, Images, drawn, observed, record, trained_on
from protocol import save_result
from short_trainings import seeded, started, trained

ALIGNED, MISALIGNED = (2, 4), 8  # tiles a side: of 16 and 8 pixels, which hold whole patches of 8, and of 4
ALWAYS_SAID = (
    "accuracy",
    "confidence",
    "cue_choice",
    "cue_counts",
    "fidelity",
    "error_consistency",
    "consistency_ceiling",
    "same_wrong_label",
)
"""What was answered, alone or image by image beside the teacher: said of any network, since none of it is read as a bias."""


def with_interval(estimate: Estimate) -> dict[str, Any]:
    return {name: getattr(estimate, name) for name in ("value", "low", "high", "n", "reason") if getattr(estimate, name) is not None}


def biases(answers: Observations) -> dict[str, Any]:
    """Shape bias, and the shares of all three cues, of answers to cue conflicts."""
    cues = [answers.factors[name] for name in ("shape", "texture", "colour")]
    of_three = cue_bias(answers.decisions, cues[0], cues[1], cues[2])
    of_two = with_interval(shape_bias(answers.decisions, cues[0], cues[1]))
    return {"shape_bias": of_two, "cue_bias": {cue: with_interval(estimate) for cue, estimate in of_three.items()}}


def scrambled(images: ImageSet, grid: int) -> ImageSet:
    return replace(images, images=scramble(np.asarray(images.images), images.labels, np.arange(len(images)), 0, grid=grid).images)


def under_scramble(network: Network, images: ImageSet) -> dict[str, Any]:
    """The largest change of a logit and the retention at each grid, beside the spread of the logits."""
    clean = observe(network, images)
    right, found = clean.decisions == clean.labels, {}
    for grid in (*ALIGNED, MISALIGNED):
        answers = observe(network, scrambled(images, grid))
        kept = retention(answers.decisions == answers.labels, right, chance=float(np.bincount(images.labels).max() / len(images)))
        change = float(np.abs(answers.logits - clean.logits).max())
        same = bool((answers.decisions == clean.decisions).all())
        found[f"grid={grid}"] = {"largest_change": change, "same_answers": same, "retention": with_interval(kept)}
    return {"clean_accuracy": float(right.mean()), "spread_of_logits": float(clean.logits.std()), **found}


def bag(images: Images, seed: int, epochs: int) -> Network:
    """A bag of patches, trained as the texture reader is but longer: it sees less of an image at once."""
    who, name = (0, "bag of patches", seed), "texture_reader"
    network = seeded(who, lambda: bag_of_patches(images.clean.n_classes, images.clean.size))
    recipe = {**RECIPE, "epochs": 2 * epochs}
    said = {"progress": Progress(), "description": f"bag of patches, seed {seed}"}
    return trained(network, images.train[name], images.validation[name], recipe, who, **said)[0]


def constant_figures(teacher: ObservedRun, independent: ObservedRun) -> list[ResultRow]:
    """All figures of a student that always gives one class, beside a teacher and an independent that have learnt."""

    def constant(seen: Observations) -> Observations:
        return replace(seen, logits=np.eye(seen.logits.shape[1], dtype=np.float32)[[3] * len(seen.logits)])

    answers = {place: constant(seen) for place, seen in independent.observations.items()}
    student = ObservedRun(record("kd", STUDENT, teacher.record.seed, teacher.record.student), answers)
    pairs = [Pair(0, teacher.record.student, STUDENT, ("kd",))]
    return [row for row in results_table([teacher, independent, student], pairs) if row.run == student.record.run]


def of_constant(teacher: ObservedRun, independent: ObservedRun) -> dict[str, Any]:
    rows = constant_figures(teacher, independent)
    measured = {row.metric for row in rows if row.status == "ok"}
    return {
        "measured": sorted(measured),
        "not_measurable": {row.metric: row.reason for row in rows if row.status != "ok"},
        "nothing_that_means_something": all(name.startswith(ALWAYS_SAID) for name in measured),
    }


def of_itself(teacher: ObservedRun, independent: ObservedRun, second: ObservedRun) -> dict[str, Any]:
    """The rates of a student that is its teacher, on cue conflicts, where teacher and independent differ."""
    place = ("conflict", "", 0)
    t, i, j = (run.observations[place] for run in (teacher, independent, second))
    rates = side_with_teacher(t.decisions, t.decisions, i.decisions, j.decisions, t.labels)
    return {name: with_interval(estimate) for name, estimate in rates.items()}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder that keeps networks and answers")
    for option, default in {"train-images": 1500, "epochs": 5, "seeds": 3}.items():
        parser.add_argument(f"--{option}", type=int, default=default, help=f"default {default}")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    chosen.out.mkdir(parents=True, exist_ok=True)
    images, seeds = drawn(chosen.train_images), range(chosen.seeds)
    readers: dict[str, list[ObservedRun]] = {name: [] for name in TEACHERS}
    plain: list[ObservedRun] = []
    for seed in seeds:
        for name in TEACHERS:
            who = (0, f"teacher {name}", seed)
            readers[name].append(
                observed(record("teacher", name, seed), lambda n=name, w=who: trained_on(images, n, w, chosen.epochs), images, chosen.out)
            )
        who = (0, "student", seed)
        plain.append(
            observed(record("independent", STUDENT, seed), lambda w=who: trained_on(images, STUDENT, w, chosen.epochs), images, chosen.out)
        )
    of_readers = {name: [biases(run.observations["conflict", "", 0]) for run in runs] for name, runs in readers.items()}
    textures = images.validation["texture_reader"]
    bags = [under_scramble(bag(images, seed, chosen.epochs), textures) for seed in seeds]
    usual = [
        under_scramble(started(MODEL, images.clean, (0, "student", 0), chosen.out / f"{run.record.run}.pt"), textures)
        for run in readers["texture_reader"]
    ]
    constant = of_constant(readers["shape_reader"][0], plain[0])
    itself = [of_itself(readers["shape_reader"][seed], plain[seed], plain[(seed + 1) % len(plain)]) for seed in seeds]
    values = {name: [found["shape_bias"]["value"] for found in of] for name, of in of_readers.items()}
    aligned = [found[f"grid={grid}"] for found in bags for grid in ALIGNED]
    save_result(
        "planted_truth",
        {
            **{name: value for name, value in vars(chosen).items() if name != "out"},
            "network": MODEL,
            "side": SIDE,
            "recipe": RECIPE,
            "only_cue": of_readers,
            "bag_of_patches_under_scramble": bags,
            "texture_reader_under_scramble": usual,
            "constant_predictor": constant,
            "student_that_is_its_teacher": itself,
            "checks": {
                "shape_as_the_only_cue_at_least_0.90": min(values["shape_reader"]) >= 0.90,
                "texture_as_the_only_cue_at_most_0.10": max(values["texture_reader"]) <= 0.10,
                "bag_of_patches_keeps_its_logits_to_1e-5": all(found["largest_change"] <= 1e-5 for found in aligned),
                "bag_of_patches_has_retention_1": all(found["retention"].get("value") == 1.0 for found in aligned),
                "constant_predictor_not_measurable": constant["nothing_that_means_something"],
                "student_that_is_its_teacher_has_rate_1": all(rates["rate"].get("value") == 1.0 for rates in itself),
            },
        },
    )


if __name__ == "__main__":
    main()
