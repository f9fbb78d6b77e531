"""Does `low_pass` measure what it says? Who learnt from low-passed images must keep more under it than who learnt from clean ones.

    python benchmarks/low_pass_training.py --images parquet:PATH --name "CIFAR-10, JPEG copy"
    python benchmarks/low_pass_training.py --images trifeature --train-images 3500 --validation-images 500

For each of three seeds two networks, small/resnet8, are trained on the same images, labels, order and start: one on the clean images, one
on the images through `low_pass` at `--radius`. Both answer the validation images, cut from the training split: clean, and at each
level of the probe's full preset. Retention is (accuracy - chance) / (clean accuracy - chance), with the network's own clean
accuracy, so the figure cannot come from a network that is better everywhere; plain accuracies stand beside it.

Two checks, at the radius of training: retention and accuracy of the low-passed network are above those of the clean one in every seed.
About ten minutes on one core with the default sizes.
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossdistill.core import registry
from crossdistill.core.progress import Progress
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.seeds import torch_seed
from crossdistill.core.types import ImageSet
from crossdistill.images._splits import load_splits, parse_source
from crossdistill.metrics.retention import retention
from crossdistill.models._build import build_network
from crossdistill.observe import observe
from crossdistill.ops.network import Network
from crossdistill.probes.low_pass import full_levels, low_pass
from crossdistill.study.networks import spread
from crossdistill.train.loop import Training
from protocol import save_result

MODEL = "small/resnet8"
RECIPE: dict[str, Any] = {"batch_size": 64, "learning_rate": 2e-3, "threads": 1}
ARMS = ("clean", "low_passed")


def passed(images: ImageSet, radius: float) -> ImageSet:
    """The images through the probe, as a builder of probe sets would store them."""
    return replace(images, images=low_pass(np.asarray(images.images), images.labels, radius=radius).images)


def trained(train: ImageSet, validation: ImageSet, options: argparse.Namespace, seed: int, progress: Progress, description: str) -> Network:
    """A network of this seed: start and order of the images depend on nothing else."""
    who = (0, "student", seed)
    torch.manual_seed(torch_seed(*who, "initialisation"))
    network = build_network(MODEL, train.n_classes, train.size)
    with tempfile.TemporaryDirectory() as folder:
        recipe = TrainingConfig(**RECIPE, epochs=options.epochs)
        Training(
            network, train, spread(validation, 100), recipe, who=who, folder=Path(folder), progress=progress, description=description
        ).run()  # fmt: skip
    return network


def right(network: Network, images: ImageSet) -> np.ndarray:
    """Whether each image was answered right: bool [images]."""
    answers = observe(network, images, split="validation")
    return answers.decisions == answers.labels


def figures_of(network: Network, validation: Mapping[str, ImageSet], chance: float) -> dict[str, Any]:
    """Accuracy on each of the named image sets, the first of them clean, and retention on the others."""
    correct = {name: right(network, images) for name, images in validation.items()}
    kept = {name: retention(found, correct["clean"], chance=chance) for name, found in correct.items() if name != "clean"}
    return {
        "accuracy": {name: float(found.mean()) for name, found in correct.items()},
        "retention": {name: estimate.value for name, estimate in kept.items()},
        "not_measurable": sorted({estimate.reason for estimate in kept.values() if estimate.reason}),
    }


def compared(records: Mapping[str, Sequence[Mapping[str, Any]]], what: str, level: str) -> dict[str, Any]:
    """Low-passed minus clean at one level, for each seed; None where one of them cannot be measured."""
    pairs = zip(*([record[what][level] for record in records[arm]] for arm in ARMS), strict=True)
    differences = [None if None in pair else pair[1] - pair[0] for pair in pairs]
    return {"difference": differences, "all_seeds": all(value is not None and value > 0 for value in differences)}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--images", required=True, help="a source, such as trifeature or parquet:PATH")
    parser.add_argument("--name", help="what the result calls the images (default: the kind of source)")
    parser.add_argument("--radius", type=int, default=4, help="of the images that one of the networks learns from (default 4)")
    parser.add_argument("--result", default="low_pass_training", help="name of the result file (default low_pass_training)")
    for option, default in {"train-images": 10_000, "validation-images": 2000, "epochs": 5, "seeds": 3}.items():
        parser.add_argument(f"--{option}", type=int, default=default, help=f"default {default}")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    torch.set_num_threads(1)
    progress = Progress()
    source, settings = parse_source(chosen.images)
    splits = load_splits(source, settings, train_images=chosen.train_images, validation_images=chosen.validation_images)
    training_sets = dict(zip(ARMS, (splits.train, passed(splits.train, chosen.radius)), strict=True))
    radii = sorted({chosen.radius, *(level["radius"] for level in full_levels(splits.train.size))}, reverse=True)
    validation = {"clean": splits.validation} | {f"radius={radius}": passed(splits.validation, radius) for radius in radii}
    chance = float(np.bincount(splits.validation.labels).max() / len(splits.validation))
    records: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for seed in range(chosen.seeds):
        for arm, train in training_sets.items():
            network = trained(train, splits.validation, chosen, seed, progress, f"{arm}, seed {seed}")
            records[arm].append(figures_of(network, validation, chance))
    level = f"radius={chosen.radius}"
    at_radius = {what: compared(records, what, level) for what in ("retention", "accuracy")}
    figures = {
        "images": chosen.name or source,
        **{name: value for name, value in vars(chosen).items() if name not in ("images", "name", "result")},
        "network": MODEL,
        "recipe": RECIPE,
        "probe_version": registry.get("probe", "low_pass").version,
        "chance": chance,
        "seeds_of": records,
        "low_passed_above_clean": at_radius,
        "checks": {f"{what}_above_in_every_seed": found["all_seeds"] for what, found in at_radius.items()},
    }
    save_result(chosen.result, figures)


if __name__ == "__main__":
    main()
