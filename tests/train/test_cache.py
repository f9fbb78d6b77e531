"""Stored answers are those that the teacher gives, bit for bit, whatever a method reads; and never those to another view."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.core import registry
from crossdistill.core.errors import StudyError
from crossdistill.core.progress import Progress
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.types import Activations, Batch, FeatureMap, ImageSet
from crossdistill.models._build import build_network
from crossdistill.ops.modes import frozen
from crossdistill.train.batches import resident
from crossdistill.train.cache import Asker, CachedTeacher, CheckedTeacher, make_whole, moved_bits, same_bits
from crossdistill.train.loop import Training
from crossdistill.train.objective import Objective, make_objective, plugin_views, published_weights
from crossdistill.train.partners import same_class_partners
from crossdistill.train.precision import autocast
from crossdistill.train.stored_arrays import StoredArrays
from crossdistill.train.teacher import LiveTeacher, from_arrays, named_arrays

CPU = torch.device("cpu")
RECIPE = {"epochs": 2, "batch_size": 8, "precision": "fp32", "threads": 1, "learning_rate": 1e-2, "views": {"crops": 2, "flip": True}}
METHODS: dict[str, dict[str, Any]] = {
    "kd": {}, "crd": {"n_negatives": 6, "dim": 8}, "rkd": {}, "sskd": {"warm_up_epochs": 1}, "cskd": {}, "vlfkd": {},
}  # fmt: skip
CNN_TEACHES = ("cskd", "vlfkd")


class Lines(Progress):
    """Keeps the lines that were printed."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def vit(seed: int, **settings: Any) -> Any:
    torch.manual_seed(seed)
    return build_network("small/vit", 3, (16, 16), settings={"width": 16, "depth": 2, "heads": 2, **settings})


def cnn(seed: int) -> Any:
    torch.manual_seed(seed)
    return build_network("small/resnet8", 3, (16, 16)).to(memory_format=torch.channels_last)  # as a study places it


def asker(images: ImageSet, teacher: Any, taps: tuple[str, ...], recipe: TrainingConfig, views: Any = None, batch: int = 8) -> Asker:
    from crossdistill.train.augment import Augmentation

    pixels = resident(images.images, CPU)
    shown = Augmentation(recipe, images.size, who=(0, "student", 0))
    return Asker(LiveTeacher(teacher, taps, recipe.cache_dtype), pixels, shown, lambda: autocast("fp32", CPU), views, batch)


def made_whole(folder: Path, ask: Asker, progress: Progress | None = None, shard_rows: int = 20) -> StoredArrays:
    arrays = StoredArrays(folder, ask.n_rows, ask.specs(), shard_rows)
    make_whole(arrays, ask, progress or Progress(quiet=True), "answers")
    return arrays


def prepared(name: str, bench: Any) -> tuple[Any, Any, Objective]:
    """Teacher, student and objective of a method, drawn alike at each call."""
    plugin, settings = registry.get("method", name), METHODS[name]
    teacher, student = (frozen(cnn(99)), vit(0)) if name in CNN_TEACHES else (frozen(vit(99)), cnn(0))
    if prepare := plugin.facts["prepare_student"]:
        torch.manual_seed(1)
        prepare(student, plugin.complete(settings))
    torch.manual_seed(2)
    warm_up = plugin.facts["warm_up"]
    warm = frozen(warm_up.make(teacher, plugin.complete(settings))) if warm_up else None
    objective = make_objective(
        plugin, settings, published_weights(plugin, settings), student=student, teacher=teacher, images=bench.train,
        rng=torch.Generator().manual_seed(3), warm=warm,
    )  # fmt: skip
    return teacher, student, objective


def trained(bench: Any, name: str, folder: str, *, cached: bool, shuffled: bool = False, **recipe: Any) -> Training:
    teacher, student, objective = prepared(name, bench)
    chosen = TrainingConfig(**RECIPE | recipe)
    answers = None
    if cached:
        taps = objective.needs.teacher_taps
        arrays = made_whole(bench.folder / f"{folder}-answers", asker(bench.train, teacher, taps, chosen, objective.views, batch=7))
        stored = CachedTeacher(arrays.opened(), len(bench.train), CPU)
        live = LiveTeacher(teacher, taps, chosen.cache_dtype)
        answers = CheckedTeacher(live, stored, required=True, progress=Progress(quiet=True), description=name)
    training = Training(
        student, bench.train, bench.validation, chosen, who=(0, "student", 0), folder=bench.folder / folder, objective=objective,
        teacher=teacher, answers=answers, partners=same_class_partners(bench.train.labels, 0) if shuffled else None,
    )  # fmt: skip
    training.run()
    if answers is not None:
        assert answers.cached_share == 1.0
        assert answers.steps == training.clock.steps
    return training


@pytest.mark.parametrize(
    ("name", "recipe"),
    [*((name, {}) for name in METHODS), ("kd", {"shuffled": True}), ("cskd", {"cache_dtype": "float16"}), ("kd", {"views": "none"})],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) or "plain",
)
def test_a_training_with_stored_answers_has_the_bytes_of_one_without(
    name: str, recipe: dict[str, Any], bench: Any, copied_weights: Any, same_bytes: Any
) -> None:
    live, cached = (trained(bench, name, f"run-{on}", cached=on, **recipe) for on in (False, True))
    assert same_bytes(copied_weights(live.network), copied_weights(cached.network))
    timing = {"seconds", "images_per_second"}
    assert [row.model_dump(exclude=timing) for row in live.history] == [row.model_dump(exclude=timing) for row in cached.history]


def test_each_stored_row_is_the_answer_to_its_own_view_and_not_to_the_clean_image(bench: Any, tmp_path: Path) -> None:
    teacher, recipe = bench.teacher(), TrainingConfig(**RECIPE)
    ask = asker(bench.train, teacher, ("pooled", "stage4"), recipe, batch=5)
    cached = CachedTeacher(made_whole(tmp_path, ask).opened(), len(bench.train), CPU)
    n = len(bench.train)
    clean = ask.live.answer(ask.images)
    for view in range(4):
        index = torch.arange(n).flip(0)  # in another order and batch than when they were stored
        views = torch.full((n,), view)
        shown = ask.augment.view(ask.images, index, views)
        found = cached(batch_of(shown, index, views))
        expected = ask.live.answer(shown)
        assert all(same_bits(value, named_arrays(found)[name]) for name, value in named_arrays(expected).items())
        moved = (shown != ask.images[index]).flatten(1).any(1)
        assert moved.float().mean() > 0.5  # else this would show nothing
        assert (found.logits != clean.logits[index]).any(1)[moved].all()


def batch_of(images: torch.Tensor, index: torch.Tensor, view: torch.Tensor | None) -> Batch:
    nothing: Any = None
    return Batch(images, images, nothing, nothing, index, nothing, nothing, teacher_index=index, teacher_view=view)


@pytest.mark.parametrize("readout", ["class", "mean_heads", "mean_heads_dense"])
def test_an_answer_survives_its_flat_names_whatever_it_holds(readout: str, bench: Any) -> None:
    network = vit(0)
    network.add_token_head("distillation")
    network.readout = readout
    answer = network.eval()(torch.rand(2, 3, 16, 16), taps=("stage3", "last", "pooled", "dense", "attention"))
    back = from_arrays(named_arrays(answer))
    assert back.logits is answer.logits
    assert back.pooled is answer.pooled
    for part in ("heads", "dense", "attention"):
        ours, theirs = getattr(back, part), getattr(answer, part)
        assert list(ours) == list(theirs)
        assert all(ours[name] is theirs[name] for name in theirs)
    for name, value in answer.stages.items():
        assert (back.stages[name].grid is value.grid, back.stages[name].prefix is value.prefix) == (True, True)


@pytest.mark.parametrize("network", [vit, cnn])
def test_an_answer_does_not_depend_on_how_many_images_are_shown_with_its_own(network: Any) -> None:
    live, images = LiveTeacher(network(0), ("pooled", "last", "dense")), torch.rand(40, 3, 16, 16)
    whole = named_arrays(live.answer(images))
    for n in (1, 2, 3, 5, 7, 8, 9, 11, 13, 31):
        few = named_arrays(live.answer(images[-n:]))
        assert all(same_bits(value, whole[name][-n:]) for name, value in few.items()), n


def test_answers_that_move_with_their_place_in_a_batch_are_found(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = asker(bench.train, frozen(vit(99)), ("pooled",), TrainingConfig(**RECIPE))
    assert moved_bits(ask, 4) is None
    answer = LiveTeacher.answer

    def uneven(self: LiveTeacher, images: torch.Tensor) -> Activations:
        found = answer(self, images)
        assert found.pooled is not None
        moved = torch.zeros(len(images), 1)
        moved[-1] = 2.0**-20  # as at the border between two threads
        return replace(found, pooled=found.pooled + moved)

    monkeypatch.setattr(LiveTeacher, "answer", uneven)
    assert moved_bits(ask, 4) == pytest.approx(2.0**-20, rel=0.5)


def test_prefix_tokens_may_be_absent() -> None:
    logits, grid = torch.zeros(2, 3), torch.zeros(2, 4, 1, 1)
    back = from_arrays(named_arrays(Activations(logits, stages={"last": FeatureMap(grid)}, heads={"class": logits})))
    assert back.stages["last"].prefix is None
    assert back.heads["class"] is back.logits


def test_float16_rounds_live_answers_too_and_halves_the_store(bench: Any, tmp_path: Path) -> None:
    teacher = bench.teacher()
    single, half = (LiveTeacher(teacher, (), dtype).answer(torch.rand(4, 3, 16, 16)) for dtype in ("float32", "float16"))
    assert half.logits.dtype == torch.float32
    assert torch.equal(half.logits, half.logits.half().float())
    assert single.logits.dtype == torch.float32
    sizes = [
        asker(bench.train, teacher, (), TrainingConfig(**RECIPE | {"cache_dtype": dtype})).specs()["logits"].n_bytes
        for dtype in ("float32", "float16")
    ]
    assert sizes == [12, 6]


def test_a_batch_that_shows_no_enumerated_views_has_no_stored_answers(bench: Any) -> None:
    cached = CachedTeacher({"logits": np.zeros((24, 1, 3), np.float32)}, 24, CPU)
    with pytest.raises(ValueError, match="no enumerated views"):
        cached(batch_of(torch.zeros(2, 3, 16, 16), torch.arange(2), None))


def checked(bench: Any, *, required: bool, change: Callable[[torch.Tensor], torch.Tensor]) -> tuple[CheckedTeacher, Lines, Batch]:
    """Stored answers of which some differ from the live ones, and a batch."""
    live = LiveTeacher(bench.teacher(), ())
    cached = lambda batch: replace(answer := live(batch), logits=(changed := change(answer.logits)), heads={"class": changed})  # noqa: E731
    progress = Lines()
    answers = CheckedTeacher(live, cached, required=required, progress=progress, description="kd")
    return answers, progress, batch_of(torch.rand(4, 3, 16, 16), torch.arange(4), torch.zeros(4, dtype=torch.int64))


def one_bit_off(logits: torch.Tensor) -> torch.Tensor:
    changed = logits.clone()
    changed.view(torch.int32)[-1, -1] ^= 1
    return changed


def test_answers_that_differ_in_one_bit_are_replaced_by_live_ones_and_a_line_says_so(bench: Any) -> None:
    answers, progress, batch = checked(bench, required=False, change=one_bit_off)
    assert same_bits(answers(batch).logits, answers.live(batch).logits)
    assert progress.lines[0].startswith("  kd: stored answers differ from the teacher's own on this machine (logits by up to ")
    answers(batch)
    assert (answers.cached_share, len(progress.lines)) == (0.0, 1)


def test_required_answers_that_differ_are_refused(bench: Any) -> None:
    answers, _, batch = checked(bench, required=True, change=one_bit_off)
    with pytest.raises(StudyError, match="`cache: required` allows no others"):
        answers(batch)


def test_damaged_shards_are_named_and_made_again_and_nothing_else(bench: Any, tmp_path: Path) -> None:
    ask, progress = asker(bench.train, bench.teacher(), (), TrainingConfig(**RECIPE)), Lines()
    arrays = made_whole(tmp_path, ask, progress)
    assert "storing logits of 96 views, 1.2 kB" in progress.lines[0]
    before = (tmp_path / "logits.npy").read_bytes()
    (tmp_path / "logits.npy").write_bytes(before[:-30] + b"damage" + before[-24:])
    again = Lines()
    made_whole(tmp_path, ask, again)
    assert f"stored answers are damaged (shards 4 of {tmp_path})" in again.lines[0]
    assert "4 of 5 shards are there" in again.lines[1]
    assert (tmp_path / "logits.npy").read_bytes() == before
    assert not arrays.damaged()


def test_a_methods_own_views_are_stored_beside_each_other(bench: Any, tmp_path: Path) -> None:
    views = plugin_views(registry.get("method", "sskd"), {"warm_up_epochs": 1})
    ask = asker(bench.train, bench.teacher(), (), TrainingConfig(**RECIPE), views)
    arrays = made_whole(tmp_path, ask)
    assert arrays.opened()["logits"].shape == (96, 4, 3)
    index = torch.tensor([3, 7])
    found = CachedTeacher(arrays.opened(), 24, CPU)(batch_of(torch.zeros(8, 3, 16, 16), index, torch.tensor([1, 2])))
    shown = ask.augment.view(ask.images, index, torch.tensor([1, 2]))
    turned = ask.live.answer(shown[1:].rot90(3, (-2, -1)))
    assert same_bits(found.logits[7:], turned.logits)  # row v of sample b stands at b * views + v
