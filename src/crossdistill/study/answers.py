"""The teacher's answers of one training: from the store of answers where they are there or are to be stored, else asked afresh."""

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from crossdistill.core import registry
from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import CrossdistillError, SettingError
from crossdistill.core.progress import Progress, Stopwatch
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.store import digest, file_sha256, read_json, write_json
from crossdistill.core.types import ImageSet
from crossdistill.core.workers import CannotWork, Workers
from crossdistill.models._build import load_network
from crossdistill.ops.memory import keep_freed_memory
from crossdistill.ops.modes import frozen
from crossdistill.ops.network import Network
from crossdistill.ops.taps import ATTENTION
from crossdistill.study import timings
from crossdistill.study.answer_plans import FREE_SHARE, free_bytes, has_own_views, scheme, teacher_rows, too_large
from crossdistill.study.keys import model_source
from crossdistill.study.networks import placed
from crossdistill.study.plan import Training
from crossdistill.study.splits import study_splits
from crossdistill.study.workshop import Workshop
from crossdistill.train.augment import Augmentation
from crossdistill.train.batches import resident
from crossdistill.train.cache import Asker, CachedTeacher, CheckedTeacher, make_whole, moved_bits
from crossdistill.train.loop import ENGINE
from crossdistill.train.objective import plugin_views
from crossdistill.train.precision import autocast, resolved_precision
from crossdistill.train.stored_arrays import CannotStore, StoredArrays
from crossdistill.train.teacher import LiveTeacher

FORMAT = 1
MOST_BUILDERS = 8
SHARD_ROWS = 4096
LIBRARIES = ("torch", "torchvision", "timm", "transformers")  # whose code a teacher's answers depend on

Taps = tuple[str, ...]


def answers_of(shop: Workshop, training: Training, teacher: Network | None, taps: Taps, epoch: int | None) -> CheckedTeacher | None:
    """The teacher's stored answers for a training whose method reads `taps`; None where it is to answer each batch itself.

    A line says which of the two, and why. `epoch` is the one after which the teacher's weights were taken, None for its last.
    Raises CannotStore where `cache: required` stands and there is no room, SettingError where these answers cannot be stored.
    """
    plan, mode = shop.answers.get(training.label), training.recipe.cache
    if teacher is None or plan is None:
        return None
    if mode == "required" and not plan.possible:
        raise SettingError(f"{training.label}: `cache: required` cannot be had: {plan.why}")
    if not plan.possible:
        return _live(shop, training, plan.why)
    try:
        store = _Store.of(shop, training, teacher, epoch)
        if mode == "required":
            return store.answers(plan.taps, taps)
        if store.arrays(taps).is_complete:  # what is there is used, and mended, whatever it cost
            return store.answers(taps, taps)
        if not plan.cached:
            return _live(shop, training, plan.why)
        return store.answers(store.affordable(plan.taps, taps), taps)
    except CannotStore as error:
        if mode == "required":
            raise
        return _live(shop, training, str(error))


def _live(shop: Workshop, training: Training, why: str) -> None:
    shop.progress.line(f"  {training.label}: the teacher answers each batch itself: {why}")


def are_stored(shop: Workshop, training: Training, teacher: Network) -> bool:
    """Whether all that a training would read of its teacher's answers is in the store, whole; False where the teacher is not trained.

    `teacher` need not carry the weights that taught.
    """
    plan = shop.answers.get(training.label)
    if plan is None or not plan.possible or training.teacher is None or not shop.weights(training.teacher).exists():
        return False
    return _Store.of(shop, training, teacher, None).arrays(plan.taps).is_complete


@dataclass(frozen=True)
class _Store:
    """One teacher's answers to the views of one scheme: where they stand, and how they are made."""

    shop: Workshop
    training: Training
    teacher: Network
    weights: Path
    folder: Path
    facts: dict[str, Any]

    @classmethod
    def of(cls, shop: Workshop, training: Training, teacher: Network, epoch: int | None) -> "_Store":
        assert training.teacher is not None
        weights = shop.weights(training.teacher, epoch)
        facts = answer_facts(shop, training, teacher, weights)
        return cls(shop, training, teacher, weights, shop.store / "answers" / digest(facts), facts)

    @property
    def description(self) -> str:
        assert self.training.teacher is not None
        return f"answers of {self.training.teacher.network}, seed {self.training.teacher.seed}"

    def asker(self, taps: Taps) -> Asker:
        return asker(self.shop.splits.train, self.training, self.shop.config, self.teacher, taps, self.shop.device)

    def arrays(self, taps: Taps) -> StoredArrays:
        """The arrays of these taps, whether they are there or not."""
        ask = self.asker(taps)
        return StoredArrays(self.folder, ask.n_rows, ask.specs(), SHARD_ROWS)

    def affordable(self, *wanted: Taps) -> Taps:
        """The first of these taps whose arrays would leave most of the disk free; raises CannotStore where none would."""
        for taps in wanted:
            arrays, free = self.arrays(taps), free_bytes(self.folder)
            if arrays.unreserved_bytes <= free / FREE_SHARE:
                return taps
        raise CannotStore(f"{too_large(arrays.n_bytes, free)}; `cache: required` would store them all the same")

    def answers(self, taps: Taps, own: Taps) -> CheckedTeacher:
        """The answers to this training's batches, which reads the taps `own`, once the arrays of `taps` are whole."""
        shop, training = self.shop, self.training
        torch.set_num_threads(training.recipe.threads)
        keep_freed_memory()
        if not (self.folder / "manifest.json").exists():
            with contextlib.suppress(CrossdistillError):  # in a read-only store: what is there may be whole
                write_json(self.folder / "manifest.json", {"format": FORMAT, "row": "view * images + image", **self.facts})
        self._refuse_moved_bits(taps)
        arrays = self.arrays(taps)
        watch, n_missing = Stopwatch(), min(len(arrays.missing()) * SHARD_ROWS, arrays.n_rows)
        make_whole(arrays, self.asker(taps), shop.progress, self.description, beside=self._helpers(arrays, taps))
        if n_missing:
            timings.note(shop.store, timings.answer_facts(shop, training, taps), rows_per_second=n_missing / max(watch.seconds, 1e-9))
        cached = CachedTeacher(self.arrays(own).opened(), len(shop.splits.train), shop.device)
        live = LiveTeacher(self.teacher, own, training.recipe.cache_dtype)
        shop.progress.line(f"  {training.label}: the teacher's answers are read from {self.folder}")
        required = training.recipe.cache == "required"
        return CheckedTeacher(live, cached, required=required, progress=shop.progress, description=training.label)

    def _refuse_moved_bits(self, taps: Taps) -> None:
        """Raises CannotStore where answers move with their place in a batch; tried once, so that a resumed training decides alike."""
        ask = self.asker(taps)
        tried = self.folder / f"places-{digest([sorted(taps), ask.batch_size])}.json"
        if tried.exists():
            apart = read_json(tried)["apart"]
        else:
            apart = moved_bits(ask)
            with contextlib.suppress(CrossdistillError):  # in a read-only store it is tried each time
                write_json(tried, {"format": FORMAT, "taps": sorted(taps), "batch_size": ask.batch_size, "apart": apart})
        if apart is not None:
            raise CannotStore(
                f"at `threads: {self.training.recipe.threads}` its answers move by up to {apart:.2g} with their place in a batch, and "
                "stored ones would not be the live ones; `threads: 1` mends that"
            )

    @contextlib.contextmanager
    def _helpers(self, arrays: StoredArrays, taps: Taps) -> Iterator[None]:
        """Processes that fill shards beside this one, where there are cores for them and more than one shard is missing."""
        count = min(n_builders(self.training.recipe.threads), len(arrays.missing())) - 1
        if count < 1 or self.shop.device.type != "cpu":
            yield
            return
        try:
            workers = Workers(
                count, helper, self.shop.config, self.training, self.weights, taps, arrays.folder, arrays.shard_rows, threads=None,
                on_demand=True,
            )  # fmt: skip
        except CannotWork as error:
            self.shop.progress.line(f"  {self.description}: stored by one process ({str(error).splitlines()[0]})")
            yield
            return
        with workers:
            helping = [workers.submit() for _ in range(count)]
            yield
            failed = [error for future in helping if future.done() and (error := future.exception())]
            for error in failed[:1]:
                self.shop.progress.line(f"  {self.description}: {len(failed)} of {count} helping processes failed ({error})")


def helper(
    config: StudyConfig, training: Training, weights: Path, taps: Taps, folder: Path, shard_rows: int
) -> Callable[[], None]:  # fmt: skip
    """What a helping process does: fill shards of one store of answers until none is left."""
    torch.set_num_threads(training.recipe.threads)
    keep_freed_memory()
    device = torch.device("cpu")
    teacher = frozen(placed(load_network(weights), device))
    ask = asker(study_splits(config, Progress(quiet=True)).train, training, config, teacher, taps, device)
    return lambda: StoredArrays(folder, ask.n_rows, ask.specs(), shard_rows).fill_missing(ask.blocks)


def asker(images: ImageSet, training: Training, config: StudyConfig, teacher: Network, taps: Taps, device: torch.device) -> Asker:
    """Asks a teacher about the views that a training shows, as its loop would."""
    recipe, method = training.recipe, training.method
    assert method is not None
    plugin = registry.get("method", method.name)
    precision = resolved_precision(recipe.precision, device)
    return Asker(
        LiveTeacher(teacher, taps, recipe.cache_dtype), resident(images.images, device),
        Augmentation(recipe, images.size, who=(config.seed, training.role, training.seed)), lambda: autocast(precision, device),
        plugin_views(plugin, plugin.parse(method.settings)), _micro_batch(recipe, len(images)),
    )  # fmt: skip


def answer_facts(shop: Workshop, training: Training, teacher: Network, weights: Path) -> dict[str, Any]:
    """Everything that can change a bit of the stored answers; its digest names their folder."""
    recipe, method, images, device = training.recipe, training.method, shop.splits.train, shop.device
    assert method is not None
    assert training.teacher is not None
    plugin = registry.get("method", method.name)
    needs_own = has_own_views(training)
    rows = teacher_rows(plugin_views(plugin, plugin.parse(method.settings)), images)
    plan = shop.answers[training.label]
    return {
        "engine": ENGINE,
        "teacher": {
            "weights": file_sha256(weights), "key": training.teacher.key, "model": teacher.model_name,
            "source": model_source(teacher.model_name), "settings": str(teacher.settings),
            "input_size": list(teacher.input_size), "readout": teacher.readout,
        },
        "images": {"count": len(images), "content": digest([images.provenance.get("key"), images.ids.tolist()])},
        "study_seed": shop.config.seed,
        "shown": {**scheme(recipe), "precision": resolved_precision(recipe.precision, device)},
        "method_views": [plugin.name, plugin.identity, plugin.chosen(method.settings), rows] if needs_own else None,
        "watched_attention": ATTENTION in plan.taps,
        # On a GPU, unlike a CPU, kernels are chosen by the size of a batch.
        "batch": None if device.type == "cpu" else rows * _micro_batch(recipe, len(images)),
        "machine": {
            "device": device.type, "name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(), **_versions(),
        },
    }  # fmt: skip


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):  # transformers is an extra
            found[name] = version(name)
    return found


def _micro_batch(recipe: TrainingConfig, n_images: int) -> int:
    """How many images a teacher is shown at once."""
    return -(-min(recipe.batch_size, n_images) // (recipe.accumulate * recipe.devices))


def n_builders(threads: int) -> int:
    """How many processes, this one included, store answers side by side: as many as the cores hold, at most 8."""
    return max(1, min(MOST_BUILDERS, len(os.sched_getaffinity(0)) // threads))
