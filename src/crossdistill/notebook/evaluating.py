"""`crossdistill.evaluate`: profiles of networks that are there already, from Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from crossdistill.core.errors import SettingError
from crossdistill.core.store import cache_folder
from crossdistill.notebook.images import source_of, training_images
from crossdistill.notebook.networks import finished_entry, is_entry, label_of
from crossdistill.notebook.progress import session_progress
from crossdistill.notebook.results import Evaluation
from crossdistill.notebook.session import session_kept
from crossdistill.study.environment import chosen_device
from crossdistill.study.evaluate import evaluate_networks


def evaluate(
    networks: Any, images: Any, *, probes: str | Sequence[str] | None = None, preset: str = "quick",
    masks: str | None = None, encoder: str | None = None, styles: str | None = None, class_names: Sequence[str] | None = None,
    out: str | Path | None = None, store: str | Path | None = None, device: str = "auto", quiet: bool = False,
) -> Evaluation:  # fmt: skip
    """Show `networks` the test images and the probes of them; nothing is trained.

    `networks` is one network, a list, or {name: network}; a network is a torch.nn.Module (see `Preprocessed`), a network of a result,
    a .safetensors file, the folder of a run, or the name of a model with published weights. `images` are as in `distill`; of images
    without a test part, or without a validation part on which temperatures are fitted, these are cut. `probes` are names, or "all"
    (None: those that need neither masks nor weights). The tables are written where `out` names a folder. Raises CrossdistillError,
    with what to do, for what cannot be done.
    """
    progress, shared = session_progress(quiet=quiet), Path(store) if store else cache_folder()
    named = _named(networks)
    with session_kept(), source_of(images, class_names, progress) as source, TemporaryDirectory() as unasked:
        shown = training_images(source, progress)
        texts = {name: _text(finished_entry(network, shown, shared), name) for name, network in named.items()}
        _refuse_twins(texts)
        found = evaluate_networks(
            list(texts.values()),
            source,
            names=list(texts),
            out=Path(out or unasked),
            probes=probes if probes is None or isinstance(probes, str) else ",".join(probes),
            given={"masks": masks, "encoder": encoder, "styles": styles},
            preset=preset,
            store=shared,
            device=chosen_device(device),
            progress=progress,
        )
    return Evaluation(tuple(found.results), tuple(found.pairs))


def _named(networks: Any) -> dict[str, Any]:
    """{name: network}; of those without a name the class or the file, numbered where it occurs again."""
    if isinstance(networks, Mapping) and not is_entry(networks):
        return {str(name): network for name, network in networks.items()}
    listed = list(networks) if isinstance(networks, list | tuple) else [networks]
    if not listed:
        raise SettingError("there is no network to evaluate: give one, a list, or {name: network}")
    labels = [label_of(network) for network in listed]
    numbers = [labels[: place + 1].count(label) for place, label in enumerate(labels)]
    return {f"{label}-{number}" if number > 1 else label: network for label, number, network in zip(labels, numbers, listed, strict=True)}


def _refuse_twins(texts: Mapping[str, str]) -> None:
    """Raises SettingError where two names stand for one network: every figure would be there twice."""
    first: dict[str, str] = {}
    for name, text in texts.items():
        if first.setdefault(text, name) != name:
            raise SettingError(f"'{first[text]}' and '{name}' are one network, with the same weights: give it once")


def _text(entry: Mapping[str, Any], name: str) -> str:
    """The entry as the command line names a network."""
    if odd := [setting for setting in entry if setting not in ("model", "checkpoint")]:
        raise SettingError(f"{name}: a network that is only evaluated takes no setting `{odd[0]}`: give the network itself")
    return str(entry.get("checkpoint") or entry.get("model"))
