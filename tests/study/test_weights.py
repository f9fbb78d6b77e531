"""The weights of finished networks: a file in another's place is refused, whether it teaches, is observed, or taught after an epoch."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import SettingError, StudyError, WeightsError
from crossdistill.core.progress import Progress
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.records import RunRecord
from crossdistill.core.store import file_sha256, locked
from crossdistill.core.study_file import read_study
from crossdistill.core.types import ImageSet, Splits
from crossdistill.models._build import build_network, save_network
from crossdistill.study import observing, tasks
from crossdistill.study.networks import load_trained
from crossdistill.study.objectives import warmed
from crossdistill.study.plan import Training, make_plan
from crossdistill.study.workshop import Workshop

CLASSES = ("a", "b", "c")


def images(n: int) -> ImageSet:
    random = np.random.default_rng(n)
    return ImageSet(
        random.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8), np.arange(n) % len(CLASSES), np.arange(n).astype(str), CLASSES,
        {"key": f"{n} images", "fingerprint": f"{n}"},
    )  # fmt: skip


def write_weights(path: Path, seed: int, **extra: Any) -> None:
    torch.manual_seed(seed)
    save_network(build_network("small/resnet8", len(CLASSES), (16, 16)), path, class_names=CLASSES, extra=extra)


@pytest.fixture
def shop(tiny: Path, tmp_path: Path) -> Workshop:
    config: StudyConfig = read_study(tiny)
    splits = Splits(images(12), images(6), images(9))
    return Workshop(config, splits, tmp_path / "out", tmp_path / "store", torch.device("cpu"), Progress(quiet=True), np.arange(9))


TEACHER = Training("teacher", "cnn", 0, TrainingConfig(threads=1), "0123456789abcdef")


@pytest.fixture
def finished(shop: Workshop) -> Training:
    """A teacher's run as its task leaves it, with the weights of its first epoch."""
    folder = shop.folder(TEACHER)
    write_weights(folder / "network.safetensors", 0, run=TEACHER.run)
    write_weights(shop.weights(TEACHER, 1), 1, run=TEACHER.run, epoch=1)
    RunRecord(
        run=TEACHER.run, label=TEACHER.label, arm="teacher", method=None, teacher=None, teacher_run=None, student="cnn",
        model="small/resnet8", family="cnn", readout="class", seed=0, parameters=1, training={}, history=[], estimates={}, timing={},
        software={}, hardware={}, weights=file_sha256(folder / "network.safetensors"),
    ).save(folder)  # fmt: skip
    return TEACHER


def test_a_teacher_whose_file_was_replaced_by_another_is_refused_until_it_is_back(shop: Workshop, finished: Training) -> None:
    path = shop.weights(finished)
    own = path.read_bytes()
    assert load_trained(shop, finished).n_classes == 3
    write_weights(path, 5, run=finished.run)  # a whole file, of a network of the same kind
    with pytest.raises(
        StudyError, match=r"network.safetensors is not the file that teacher: cnn, seed 0 left.*Put the file back, or delete"
    ):
        load_trained(shop, finished)
    path.write_bytes(own)
    assert load_trained(shop, finished).n_classes == 3


def test_the_run_of_another_teacher_in_its_folder_is_refused(shop: Workshop, finished: Training) -> None:
    other = replace(finished, key="fedcba9876543210")
    shop.folder(finished).rename(shop.folder(other))
    with pytest.raises(StudyError, match="is not the file that"):
        load_trained(shop, other)


def test_the_weights_of_an_epoch_say_whose_and_which_they_are(shop: Workshop, finished: Training) -> None:
    assert load_trained(shop, finished, 1).n_classes == 3
    first, second = shop.weights(finished, 1), shop.weights(finished, 2)
    second.write_bytes(first.read_bytes())
    write_weights(first, 3, run="teacher-of-another-study", epoch=1)
    for epoch in (1, 2):
        with pytest.raises(StudyError, match=rf"epoch-00{epoch}.safetensors is not the file that"):
            load_trained(shop, finished, epoch)


def test_a_checkpoint_that_is_replaced_gives_new_teachers_and_students_and_the_same_independents(tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    tiny.write_text(tiny.read_text().replace("{model: small/vit, width: 16, depth: 1, heads: 2}", f"{{checkpoint: {path}}}"))
    keys = []
    for seed in (0, 1, 0):
        write_weights(path, seed)
        keys.append({training.label: training.run for training in make_plan(read_study(tiny), "images", torch.device("cpu")).trainings})
    first, replaced, back = keys
    assert back == first  # what was trained with the first file is still there to be used
    assert {label for label in first if first[label] == replaced[label]} == {"independent: cnn, seed 0", "independent: cnn, seed 1"}
    assert len(first) == 5


def test_a_checkpoint_swapped_after_the_plan_is_refused(tiny: Path, tmp_path: Path, shop: Workshop) -> None:
    path = tmp_path / "own.safetensors"
    tiny.write_text(tiny.read_text().replace("{model: small/vit, width: 16, depth: 1, heads: 2}", f"{{checkpoint: {path}}}"))
    write_weights(path, 0)
    own, shop = path.read_bytes(), replace(shop, config=read_study(tiny))
    (teacher,) = make_plan(shop.config, "images", torch.device("cpu")).teachers
    write_weights(path, 1)
    with pytest.raises(WeightsError, match=r"own.safetensors was replaced while the study ran: put the file back, or start"):
        tasks.train(shop, teacher)
    path.write_bytes(own)
    assert tasks.train(shop, teacher).run == teacher.run


@pytest.mark.parametrize("busy", [False, True])
def test_the_checkpoint_that_a_kill_left_beside_a_finished_record_goes(shop: Workshop, finished: Training, busy: bool) -> None:
    left = shop.folder(finished) / "checkpoint" / "step-000000003"
    left.mkdir(parents=True)
    with locked(shop.folder(finished), "busy") if busy else nullcontext():  # by a study that wants the weights of its epochs too
        tasks.train(shop, finished)
    assert left.exists() == busy


DAMAGE = {
    "half a module": lambda folder: cut_short(folder / "module.safetensors"),
    "a flipped bit in the module": lambda folder: flip(folder / "module.safetensors"),
    "half a record": lambda folder: cut_short(folder / "record.json"),
    "no record": lambda folder: (folder / "record.json").unlink(),
}


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


def test_a_damaged_warm_up_says_what_to_delete(tiny: Path, shop: Workshop, finished: Training) -> None:
    (warm_up,) = make_plan(warmed_study(tiny), "images", torch.device("cpu")).warm_ups
    teacher, folder = load_trained(shop, finished), shop.folder(warm_up)
    whole = warmed(shop, warm_up, teacher).state_dict()
    for damage in DAMAGE.values():
        kept = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        damage(folder)
        with pytest.raises(StudyError, match=r"module.safetensors is damaged or not what warm-up of .* left .*Delete .* to train it again"):
            warmed(shop, warm_up, teacher)
        for path, content in kept.items():
            path.write_bytes(content)
    again = warmed(shop, warm_up, teacher).state_dict()
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    assert not (folder / "checkpoint").exists()


def warmed_study(tiny: Path) -> StudyConfig:
    tiny.write_text(tiny.read_text().replace("methods: [kd]", "methods: [{name: sskd, warm_up_epochs: 1}]"))
    return read_study(tiny)


def stopped(*arguments: Any) -> None:
    raise KeyboardInterrupt


def test_predictions_are_written_anew_where_a_kill_came_between_them_and_new_observations(
    shop: Workshop, finished: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    import duckdb

    shop.out.mkdir()
    tasks.copy_file(shop.folder(finished) / "record.json", shop.out / "runs" / finished.run / "record.json")
    observing._observe_run(shop, finished, finished.run)
    more = replace(shop, splits=replace(shop.splits, extra={"sketches": images(3)}))
    with monkeypatch.context() as patch:
        patch.setattr(observing, "write_predictions", stopped)
        with pytest.raises(KeyboardInterrupt):
            observing._observe_run(more, finished, finished.run)
    observing._observe_run(more, finished, finished.run)
    path = shop.out / "predictions" / f"{finished.run}.parquet"
    assert set(duckdb.sql(f"SELECT DISTINCT probe FROM '{path}'").fetchall()) == {("clean",), ("sketches",)}


def test_a_checkpoint_without_the_weights_of_its_epochs_is_not_gone_on_from_where_these_are_wanted(
    shop: Workshop, finished: Training
) -> None:
    folder = shop.folder(finished)
    (folder / "log.jsonl").write_text("{}\n")
    assert tasks._all_kept(shop, finished, folder)
    (folder / "log.jsonl").write_text("{}\n{}\n")
    assert not tasks._all_kept(shop, finished, folder)


def test_what_does_not_fit_into_memory_while_it_is_observed_says_what_to_lower(
    shop: Workshop, finished: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "observe", lambda *arguments, **options: torch.empty(1 << 50))
    with pytest.raises(SettingError, match=r"lower `observe: \{batch_size\}`"):
        observing._observe_run(shop, finished, finished.run)
