"""What enumerated views cost in accuracy: `views: {crops: 8, flip: true}`, whose teacher can be cached, against `views: free`.

    python benchmarks/views_accuracy.py --images parquet:PATH --name "CIFAR-10, JPEG copy"

For each of five seeds and each scheme a small/resnet8 is trained without a teacher and with kd, all else equal: start, order of the
images, budget. The training is long and the images are few, so that an image is shown many more times than it has views (48 against 16):
where the list is too short, it shows here. Accuracy is on validation images, cut from the training split.

`difference` is 8 crops minus free, paired by seed, with a 95 % interval of Student's t over the seeds; the check asks whether the mean with
8 crops lies within the 95 % interval of the mean of free over its seeds. About half an hour on 2 cores.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from crossdistill.core import registry
from crossdistill.core.progress import Progress
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.seeds import torch_seed
from crossdistill.core.types import Splits
from crossdistill.images._splits import load_splits, parse_source
from crossdistill.models._build import build_network
from crossdistill.observe import observe
from crossdistill.ops.modes import frozen
from crossdistill.ops.network import Network
from crossdistill.study.networks import placed, spread
from crossdistill.train.loop import Training
from crossdistill.train.objective import Objective, make_objective, published_weights
from protocol import save_result

STUDENT, TEACHER = "small/resnet8", "small/vit"
RECIPE: dict[str, Any] = {"batch_size": 128, "learning_rate": 2e-3, "threads": 1}
SCHEMES: dict[str, Any] = {"crops_8": {"crops": 8, "flip": True}, "free": "free"}
ARMS = ("independent", "kd")
CPU = torch.device("cpu")


def trained(
    model: str, splits: Splits, recipe: dict[str, Any], who: tuple[Any, ...], progress: Progress, teacher: Network | None = None
) -> tuple[Network, float]:
    """A network and its validation accuracy; start, order and views depend on `who` alone."""
    torch.manual_seed(torch_seed(*who, "initialisation"))
    network, objective = placed(build_network(model, splits.train.n_classes, splits.train.size), CPU), Objective()
    if teacher is not None:
        kd = registry.get("method", "kd")
        made = {"student": network, "teacher": teacher, "images": splits.train, "rng": torch.Generator()}
        objective = make_objective(kd, {}, published_weights(kd, {}), **made)
    with tempfile.TemporaryDirectory() as folder:
        training = Training(
            network, splits.train, spread(splits.validation, 100), TrainingConfig(**RECIPE, **recipe), who=who, folder=Path(folder),
            objective=objective, teacher=teacher, progress=progress,
            description=f"{model}{' with kd' if teacher else ''}, {recipe['views']}, {who[1:]}",
        )  # fmt: skip
        training.run()
    answers = observe(network, splits.validation, split="validation")
    return network, float((answers.decisions == answers.labels).mean())


def compared(crops: Sequence[float], free: Sequence[float]) -> dict[str, Any]:
    """The paired difference, and whether the mean with 8 crops lies within the interval of the mean of free."""
    low, high = _interval(free)
    difference = np.subtract(crops, free)
    return {
        "crops_8": list(crops),
        "free": list(free),
        "mean_crops_8": float(np.mean(crops)),
        "mean_free": float(np.mean(free)),
        "free_interval": [low, high],
        "difference": float(difference.mean()),
        "difference_interval": list(_interval(difference)),
        "within_the_seed_interval_of_free": bool(low <= np.mean(crops) <= high),
    }


def _interval(values: Any) -> tuple[float, float]:
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    return float(low), float(high)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--images", required=True, help="a source, such as trifeature or parquet:PATH")
    parser.add_argument("--name", help="what the result calls the images (default: the kind of source)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="default: %(default)s")
    for option, default in {"train-images": 1200, "validation-images": 5000, "epochs": 48, "seeds": 5}.items():
        parser.add_argument(f"--{option}", type=int, default=default, help=f"default {default}")
    return parser.parse_args()


def main() -> None:
    chosen, progress = options(), Progress()
    torch.set_num_threads(1)
    source, settings = parse_source(chosen.images)
    splits = load_splits(source, settings, train_images=chosen.train_images, validation_images=chosen.validation_images)
    recipe = {"epochs": chosen.epochs}
    teacher, taught = None, None
    if "kd" in chosen.arms:
        network, taught = trained(TEACHER, splits, {**recipe, "views": SCHEMES["crops_8"]}, (0, "teacher", 0), progress)
        teacher = frozen(network)
    found: dict[str, dict[str, list[float]]] = {arm: {scheme: [] for scheme in SCHEMES} for arm in chosen.arms}
    for seed in range(chosen.seeds):
        for scheme, views in SCHEMES.items():
            for arm in chosen.arms:
                asked, shown = {**recipe, "views": views}, teacher if arm == "kd" else None
                found[arm][scheme].append(trained(STUDENT, splits, asked, (0, "student", seed), progress, shown)[1])
    figures = {
        "images": chosen.name or source,
        **{name: value for name, value in vars(chosen).items() if name not in ("images", "name")},
        "student": STUDENT,
        "teacher": TEACHER,
        "teacher_validation_accuracy": taught,
        "recipe": RECIPE,
        "validation_accuracy": {arm: compared(values["crops_8"], values["free"]) for arm, values in found.items()},
    }
    save_result("views_accuracy", figures)


if __name__ == "__main__":
    main()
