"""How fast networks answer and probes are built, tried on a few images (see `trials`)."""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

from crossdistill.core import registry
from crossdistill.core.config import ProbeConfig
from crossdistill.core.errors import CrossdistillError
from crossdistill.core.progress import Stopwatch
from crossdistill.models._build import build_network, save_network
from crossdistill.observe import observe
from crossdistill.ops.modes import frozen
from crossdistill.probes._build import Supplies, apply_probe, wanted_supplies
from crossdistill.study.answers import asker
from crossdistill.study.encoders import MODEL, SETTINGS
from crossdistill.study.instruments import MAP_UNIT, measured_of
from crossdistill.study.networks import spread
from crossdistill.study.plan import Training
from crossdistill.study.probes import study_recipe, supplied
from crossdistill.study.supplies import supplies_for
from crossdistill.study.trials import CAP_S, Trial, typical, untaught
from crossdistill.study.workshop import Workshop

FEW_IMAGES = 256  # that show how fast a network is observed
FEW_MEASURED = 16  # that show how long an instrument takes
FEW_PROBED, FEW_SUPPLIED = 64, 8  # that show how long a probe takes; the second where it needs more than images


def answer_trial(shop: Workshop, training: Training, taps: tuple[str, ...]) -> Trial:
    """Batches that a training's teacher answers, as they would be stored."""
    assert training.teacher is not None
    torch.set_num_threads(training.recipe.threads)
    teacher = frozen(untaught(shop, training.teacher.network))
    ask = asker(shop.splits.train, training, shop.config, teacher, taps, shop.device)
    rows = torch.arange(min(ask.batch_size, ask.n_rows), device=shop.device)
    seconds, count = typical(lambda: ask(rows), 5, shop.device)
    return Trial(f"{count} batches", {"rows_per_second": len(rows) / seconds})


def observation_trial(shop: Workshop, network: str, threads: int) -> Trial:
    """A network observed on some test images."""
    torch.set_num_threads(threads)
    built, shown = frozen(untaught(shop, network)), spread(shop.splits.test, FEW_IMAGES)
    size = shop.config.observe.batch_size
    seconds, _ = typical(lambda: observe(built, shown, device=shop.device, batch_size=size), 3, shop.device)
    return Trial(f"{len(shown)} images", {"images_per_second": len(shown) / seconds})


def instrument_trial(shop: Workshop, network: str, threads: int, names: list[str]) -> Trial:
    """Every instrument on a few images; pictures are of as many as always."""
    torch.set_num_threads(threads)
    built, test = frozen(untaught(shop, network)), shop.splits.test
    wanted = min(shop.config.observe.instrument_images, len(test))
    count, total = min(FEW_MEASURED, wanted), 0.0
    for name in names:
        watch = Stopwatch()
        measured_of(built, test, device=shop.device, count=count, batch_size=shop.config.observe.batch_size, names=[name])
        pictures = registry.get("instrument", name).facts["unit"] == MAP_UNIT
        total += watch.seconds * (1.0 if pictures else wanted / count)
    return Trial(f"{count} images", {"seconds": total})


def probe_trial(shop: Workshop, probe: ProbeConfig) -> Trial | None:
    """A probe on a few images at each level, in one process; None where what it needs is not there yet, or cannot be had."""
    test, recipe = shop.splits.test, study_recipe(probe, shop.config, shop.splits.test.size)
    with tempfile.TemporaryDirectory() as aside:
        try:
            supplies = _supplies(shop, probe, Path(aside))
            rows = np.arange(min(FEW_SUPPLIED if supplies else FEW_PROBED, len(test)))
            watch, seconds = Stopwatch(), []
            for level in recipe.levels:
                each = Stopwatch()
                apply_probe(recipe.plugin, level, test, rows, 0, supplies)
                seconds.append(each.seconds / len(rows))
                if watch.seconds > CAP_S:
                    break
        except CrossdistillError:  # told, with what to do, when the set is to be built
            return None
    whole = statistics.mean(seconds) * len(recipe.levels) * recipe.draws
    return Trial(f"{len(rows)} images, {len(seconds)} of {len(recipe.levels)} levels", {"seconds_per_image": whole})


def _supplies(shop: Workshop, probe: ProbeConfig, aside: Path) -> Supplies:
    """What the probe is given, with an untrained encoder of the kind that it will get, since a trained one may not exist yet."""
    plugin, named, test = registry.get("probe", probe.name), supplied(probe), shop.splits.test
    if "encoder" in wanted_supplies(plugin) and not (named["encoder"] or "").endswith(".safetensors"):
        settings = SETTINGS if named["encoder"] is None else {}
        encoder = build_network(named["encoder"] or MODEL, test.n_classes, test.size, settings=settings)
        save_network(encoder, aside / "encoder.safetensors", class_names=test.class_names)
        named = {**named, "encoder": str(aside / "encoder.safetensors")}
    return supplies_for(plugin, test, masks=named["masks"], styles=named["styles"], encoder=named["encoder"], store=aside)
