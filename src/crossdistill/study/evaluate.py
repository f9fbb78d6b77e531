"""Profiles of networks that exist already, on clean and probe images; nothing is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossdistill.compare import ObservedRun
from crossdistill.core.config import ImagesConfig
from crossdistill.core.errors import SettingError
from crossdistill.core.progress import Progress
from crossdistill.core.records import EstimateModel, RunRecord
from crossdistill.core.store import locked
from crossdistill.core.types import ImageSet, Splits
from crossdistill.images._splits import load_splits, parse_source
from crossdistill.models._build import build_network, load_network
from crossdistill.observe import observe
from crossdistill.ops.network import Network
from crossdistill.study.decisions import Evaluated, evaluated
from crossdistill.study.environment import hardware, software
from crossdistill.study.instruments import measured_of
from crossdistill.study.probes import ALL, ProbeJob, chosen_probes, observe_probe, refuse_unused
from crossdistill.study.temperature import temperature


def evaluate_networks(
    networks: Sequence[str], images: str | Mapping[str, Any], *, out: Path, probes: str | None, given: Mapping[str, str | None] = {},
    preset: str, store: Path, device: torch.device, progress: Progress, names: Sequence[str] | None = None,
) -> Evaluated:  # fmt: skip
    """Observe each network on the test images, the source's extra sets and the probes; writes results.parquet and pairs.parquet.

    Temperatures are fitted on the validation images, which are cut from the source's training images: that of a network which was
    trained on these comes out too low. A network is a .safetensors file, a run's folder, or a model's name (its published weights).
    Raises SettingError where it tells another number of classes apart than the images have, or is named twice. `probes` are names
    separated by commas, or `all` (None: the core probes); `given` the arguments masks, encoder and styles of `supplies_for`; `images`
    may also be what stands in a study file; `names` are what the tables call the networks (None: what their files are called).
    """
    probe_names = chosen_probes(probes)
    refuse_unused(probe_names, given)
    _refuse_twins(networks)
    with locked(out, f"another crossdistill is writing to {out}: wait for it, or choose another --out folder"):
        return _evaluate(
            networks, images, out=out, probes=probe_names, lenient=probes == ALL, given=given, preset=preset, store=store,
            device=device, progress=progress, names=names,
        )  # fmt: skip


def _evaluate(
    networks: Sequence[str], images: str | Mapping[str, Any], *, out: Path, probes: Sequence[str], lenient: bool,
    given: Mapping[str, str | None], preset: str, store: Path, device: torch.device, progress: Progress, names: Sequence[str] | None,
) -> Evaluated:  # fmt: skip
    splits = _splits(images)
    names = names or [Path(text).stem for text in networks]
    if len(set(names)) < len(names):
        names = list(networks)
    loaded = [(name, _network(text, splits.test).to(device)) for name, text in zip(names, networks, strict=True)]
    job = ProbeJob(probes, splits, given, preset, 0, store, device, progress, lenient)
    sets = {built.name: built for built in job.built(store / "probes")}
    runs = []
    for name_of_network, network in loaded:
        progress.line(f"observing {name_of_network}")
        answers = {("clean", "", 0): observe(network, splits.test, device=device)}
        answers |= {(name, "", 0): observe(network, extra, device=device, split=name) for name, extra in splits.extra.items()}
        for name, probe_set in sets.items():
            answers |= {(name, *place): seen for place, seen in observe_probe(network, probe_set, device=device).items()}
        fitted = temperature(observe(network, splits.validation, device=device, split="validation"))
        record, rows = _record(name_of_network, network, device, fitted), np.arange(len(splits.test))
        runs.append(ObservedRun(record, answers, rows, measured_of(network, splits.test, device=device)))
    return evaluated(runs, out)


def _splits(images: str | Mapping[str, Any]) -> Splits:
    if isinstance(images, str):
        return load_splits(*parse_source(images))
    chosen = ImagesConfig.model_validate(images)
    read = {name: getattr(chosen, name) for name in ("train_images", "validation_images", "test_images", "test", "exclude", "cue_conflict")}
    return load_splits(chosen.source, chosen.settings, **read)


def _refuse_twins(networks: Sequence[str]) -> None:
    paths = [_path(text) for text in networks]
    known = [str(path.resolve()) if path.exists() else text for path, text in zip(paths, networks, strict=True)]
    for number, name in enumerate(known):
        if name in known[:number]:
            raise SettingError(f"the network {networks[number]} is named twice: name each once, else its figures cannot be told apart")


def _path(text: str) -> Path:
    return Path(text) / "network.safetensors" if Path(text).is_dir() else Path(text)


def _network(text: str, images: ImageSet) -> Network:
    path = _path(text)
    if path.suffix == ".safetensors":
        if not path.exists():
            raise SettingError(f"there is no network at {path}: give a .safetensors file, the folder of a finished run, or a model's name")
        network = load_network(path)
    else:
        network = build_network(text, images.n_classes, images.size, pretrained=True)
        if network.notes:  # the published head tells other classes apart, and a new one knows nothing
            raise SettingError(f"{text} cannot be read on these images: {network.notes[0]} Fine-tune it first, as a teacher of a study.")
    if network.n_classes != images.n_classes:
        raise SettingError(
            f"{text} tells {network.n_classes} classes apart, the images have {images.n_classes}: choose images with the same classes"
        )
    return network


def _record(name: str, network: Network, device: torch.device, fitted: EstimateModel) -> RunRecord:
    return RunRecord(
        run=name, label=name, arm="network", method=None, teacher=None, teacher_run=None, student=name, model=network.model_name,
        family=network.family, readout=network.readout, patch_grid=network.patch_grid, seed=0, parameters=network.n_parameters, training={},
        history=[], estimates={"temperature": fitted}, notes=network.notes, timing={}, software=software(), hardware=hardware(device),
    )  # fmt: skip
