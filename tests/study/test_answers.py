"""Which students read stored answers, what the plan says of it, and that a study's bytes do not depend on it."""

import errno
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.core.config import NetworkConfig
from crossdistill.core.errors import SettingError
from crossdistill.core.progress import Progress
from crossdistill.core.study_file import parse_study
from crossdistill.images._splits import load_splits
from crossdistill.models._build import build_network, save_network
from crossdistill.ops.modes import frozen
from crossdistill.study import answer_plans, answers
from crossdistill.study.answer_plans import AnswerPlan, affordable, answers_json
from crossdistill.study.networks import chosen_network
from crossdistill.study.plan import Plan, Training, make_plan
from crossdistill.study.splits import fingerprint
from crossdistill.study.tasks import train
from crossdistill.study.workshop import Workshop
from crossdistill.train import stored_arrays
from crossdistill.train.cache import CheckedTeacher
from crossdistill.train.stored_arrays import CannotStore

CPU = torch.device("cpu")
TRAINING = {"epochs": 3, "batch_size": 16, "threads": 1, "precision": "fp32", "views": {"crops": 2, "flip": True}, "warmup_epochs": 1}


class Lines(Progress):
    """Keeps the lines that were printed."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def study(*methods: Any, arms: tuple[str, ...] = ("independent",), **training: Any) -> Any:
    """A study of a small ViT that teaches a small CNN; by default 2 seeds x 3 epochs of kd on 4 views."""
    images = {"source": "trifeature", "n_values": 2, "n_train": 72, "n_test": 40, "n_conflict": 20, "side": 16}
    networks = {"vit": {"model": "small/vit", "width": 16, "depth": 1, "heads": 2}, "cnn": {"model": "small/resnet8"}}
    return parse_study(json.dumps({
        "name": "stored", "images": images, "networks": networks, "teachers": {"runs": 1, "epochs": 1}, "arms": list(arms),
        "pairs": [{"teacher": "vit", "student": "cnn", "methods": list(methods) or ["kd"]}], "seeds": [0, 1], "probes": [],
        "primary": [], "signal_gate": "off", "training": {**TRAINING, **training},
    }))  # fmt: skip


def plan_of(config: Any) -> tuple[Plan, Any, dict[str, AnswerPlan]]:
    splits = load_splits("trifeature", config.images.settings)
    networks = {name: chosen_network(chosen, splits.train, pretrained=False) for name, chosen in config.networks.items()}
    plan = make_plan(config, fingerprint(splits), CPU)
    return plan, splits, answer_plans.answer_plans(plan, networks, splits)


def rows(*methods: Any, **more: Any) -> dict[str, dict[str, Any]]:
    """What the plan says of each arm's answers."""
    plan, _, found = plan_of(study(*methods, **more))
    return {row["arm"].split(":")[0]: row for row in answers_json(plan, found)}


def test_answers_are_stored_where_the_students_that_share_them_ask_more_often_than_there_are_views() -> None:
    enough = rows()["kd"]
    assert enough["cached"]
    assert "4 views of each image, which is asked about 6 times by the 2 students that share the answers" in enough["why"]
    n_train = enough["live_forwards"] // 6
    assert enough["cached_forwards"] == 4 * n_train
    shorter = rows({"name": "kd", "until": 0.5})["kd"]  # taught in 2 of 3 epochs: 4 times for 4 views
    assert not shorter["cached"]
    assert shorter["live_forwards"] == shorter["cached_forwards"] == 4 * n_train
    assert "would not pay" in shorter["why"]


def test_methods_and_controls_share_the_answers_and_their_taps() -> None:
    found = rows({"name": "kd", "until": 0.5}, "rkd", arms=("independent", "shuffled_teacher"))
    assert list(found) == ["kd", "kd+shuffled_teacher", "rkd", "rkd+shuffled_teacher"]
    assert all(row["cached"] and row["taps"] == ["pooled"] for row in found.values())
    n_train = found["kd"]["live_forwards"] // 4
    assert sum(row["cached_forwards"] for row in found.values()) == pytest.approx(4 * n_train, abs=8)  # whole images an arm and seed


@pytest.mark.parametrize(
    ("method", "training", "why"),
    [
        ("kd", {"views": "free"}, "`views: free` draws each view afresh"),
        ("kd", {"mixup": 0.2}, "mixup mixes other images in each step"),
        ("kd", {"cutmix": 1.0}, "cutmix mixes other images in each step"),
        ("capd", {}, "method 'capd' draws what the teacher is shown afresh"),
        ({"name": "capd", "variant": "release"}, {}, "method 'capd' says that its teacher's answers are not to be stored"),
    ],
)
def test_what_cannot_be_stored_says_why_and_is_refused_where_it_is_required(method: Any, training: dict[str, Any], why: str) -> None:
    (row,) = rows(method, **training).values()
    assert not row["cached"]
    assert why in row["why"]
    with pytest.raises(SettingError, match="`cache: required` cannot be had, since"):
        rows(method, **training, cache="required")


def test_off_is_off_and_required_stores_what_would_not_pay() -> None:
    assert rows(cache="off")["kd"]["why"] == "`cache: off`"
    assert parse_study(json.dumps({**json.loads(study().model_dump_json()), "training": {"cache": False}})).training.cache == "off"
    assert rows({"name": "kd", "until": 0.3}, cache="required")["kd"]["cached"]


def test_one_view_is_stored_for_two_epochs_or_more() -> None:
    assert rows(views="none")["kd"]["cached"]


def test_more_than_a_quarter_of_the_free_space_is_not_stored_unless_required(tmp_path: Path) -> None:
    huge = AnswerPlan(True, "pays", True, n_bytes=10**18, live_forwards=10, cached_forwards=2)
    required = AnswerPlan(True, "required", True, required=True, n_bytes=10**18, live_forwards=10, cached_forwards=2)
    found = affordable({"auto": huge, "required": required}, tmp_path / "not" / "there")
    assert (found["auto"].cached, found["auto"].cached_forwards) == (False, 10)
    assert "more than a quarter of the" in found["auto"].why
    assert found["required"] == required


@pytest.fixture
def at_work(tmp_path: Path) -> Callable[..., Any]:
    """Asks for the answers of the study's first student as its training would, its teacher's weights being drawn by a seed."""

    def ask(config: Any = None, *, weights: int = 0, taps: tuple[str, ...] = ()) -> tuple[CheckedTeacher | None, list[str]]:
        plan, splits, found = plan_of(config or study())
        shop = Workshop(config or study(), splits, tmp_path / "out", tmp_path / "store", CPU, Lines(), np.arange(0), answers=found)
        training: Training = next(student for student in plan.students if student.teacher)
        assert training.teacher is not None
        torch.manual_seed(weights)
        network = frozen(chosen_network(shop.config.networks["vit"], splits.train, pretrained=False))
        save_network(network, shop.weights(training.teacher), class_names=splits.train.class_names)
        given = answers.answers_of(shop, training, network, taps, None)
        return given, shop.progress.lines  # type: ignore[attr-defined]

    return ask


def folders(tmp_path: Path) -> set[str]:
    return {folder.name for folder in (tmp_path / "store" / "answers").iterdir()}


def test_a_teacher_that_was_replaced_has_answers_of_its_own(at_work: Any, tmp_path: Path) -> None:
    assert at_work()[0] is not None
    first = folders(tmp_path)
    at_work()
    assert folders(tmp_path) == first
    at_work(weights=1)
    assert len(folders(tmp_path) - first) == 1
    other = at_work(study(views={"crops": 1, "flip": True}))
    assert other[0] is not None
    assert len(folders(tmp_path)) == 3
    manifest = json.loads((tmp_path / "store" / "answers" / next(iter(first)) / "manifest.json").read_text())
    assert (manifest["row"], manifest["shown"]["views"]) == ("view * images + image", {"crops": 2, "flip": True})


def test_a_checkpoint_whose_code_changed_has_other_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "their_networks.py"
    layers = "nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, n)"
    code = f"from torch import nn\ndef net(n, size):\n    return nn.Sequential({layers})\n"
    module.write_text(code)
    network = frozen(build_network("python:their_networks:net", 2, (16, 16)))
    save_network(network, tmp_path / "own.safetensors", class_names=("a", "b"))
    chosen = study()
    chosen = chosen.model_copy(update={"networks": {**chosen.networks, "vit": NetworkConfig(checkpoint=tmp_path / "own.safetensors")}})
    plan, splits, found = plan_of(chosen)
    shop = Workshop(chosen, splits, tmp_path / "out", tmp_path / "store", CPU, Lines(), np.arange(0), answers=found)
    training = next(student for student in plan.students if student.teacher)
    facts = answers.answer_facts(shop, training, network, tmp_path / "own.safetensors")
    module.write_text(code + "# a comment alone changes nothing\n")
    assert answers.answer_facts(shop, training, network, tmp_path / "own.safetensors") == facts
    module.write_text(code.replace("AdaptiveAvgPool2d", "AdaptiveMaxPool2d"))
    assert answers.answer_facts(shop, training, network, tmp_path / "own.safetensors") != facts


def test_a_tap_asked_for_later_adds_its_arrays_alone(at_work: Any, tmp_path: Path) -> None:
    at_work()
    (folder,) = (tmp_path / "store" / "answers").iterdir()
    before = (folder / "logits.npy").stat().st_mtime_ns
    _, lines = at_work(study("rkd"), taps=("pooled",))
    assert {path.name for path in folder.glob("*.npy")} == {"logits.npy", "pooled.npy"}
    assert "storing logits, pooled" in lines[0]
    assert before == (folder / "logits.npy").stat().st_mtime_ns


def test_a_full_disk_means_live_answers_and_a_line_but_an_error_where_they_are_required(
    at_work: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(stored_arrays.os, "posix_fallocate", full)
    given, lines = at_work()
    assert given is None
    assert "the teacher answers each batch itself: cannot write" in lines[-1]
    assert "No space left on device" in lines[-1]
    with pytest.raises(CannotStore, match="No space left on device"):
        at_work(study(cache="required"))


def test_answers_that_move_with_their_place_are_not_stored(at_work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "moved_bits", lambda ask: 2.0**-20)
    given, lines = at_work()
    assert given is None
    assert "the teacher answers each batch itself: at `threads: 1` its answers move by up to 9.5e-07" in lines[-1]
    monkeypatch.setattr(answers, "moved_bits", lambda ask: pytest.fail("tried again"))
    assert at_work()[0] is None
    with pytest.raises(CannotStore, match="move by up to 9.5e-07"):
        at_work(study(cache="required"))


def test_what_is_stored_is_used_where_storing_it_would_not_pay(at_work: Any) -> None:
    short = study({"name": "kd", "until": 0.3})
    given, lines = at_work(short)
    assert given is None
    assert "would not pay" in lines[-1]
    assert at_work(study())[0] is not None
    given, lines = at_work(short)
    assert given is not None
    assert "answers are read from" in lines[-1]


def test_helping_processes_store_the_same_bytes(at_work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "SHARD_ROWS", 16)
    at_work()
    (folder,) = (tmp_path / "store" / "answers").iterdir()
    alone = (folder / "logits.npy").read_bytes()
    for path in (*folder.glob("shards/*"), folder / "logits.npy"):
        path.unlink()
    monkeypatch.setattr(answers, "n_builders", lambda threads: 2)
    helped: list[int] = []
    fill = stored_arrays.StoredArrays.fill

    def fill_slowly(self: Any, shard: int, blocks: Any) -> None:  # until the helper has come up and taken a shard
        if not helped:
            here = {path.stem for path in folder.glob("shards/*.json")}
            deadline = time.monotonic() + 60
            while not {path.stem for path in folder.glob("shards/*.json")} - here:
                assert time.monotonic() < deadline, "the helping process stored nothing"
                time.sleep(0.05)
            helped.append(shard)
        fill(self, shard, blocks)

    monkeypatch.setattr(stored_arrays.StoredArrays, "fill", fill_slowly)
    _, lines = at_work()
    assert helped
    assert not [line for line in lines if "failed" in line]
    assert (folder / "logits.npy").read_bytes() == alone


def test_a_study_with_stored_answers_has_the_bytes_of_one_without(tmp_path: Path) -> None:
    found = {}
    for mode in ("off", "required"):
        plan, splits, planned = plan_of(study(arms=("shuffled_teacher",), cache=mode, epochs=2))
        shop = Workshop(plan.config, splits, tmp_path / mode, tmp_path / "store", CPU, Lines(), np.arange(0), answers=planned)
        records = [train(shop, training) for training in plan.trainings if training.seed == 0]
        taught = [record for record in records if record.teacher]
        assert [record.timing["teacher_cached"] for record in taught] == [float(mode == "required")] * 2
        timing = {"timing": True, "history": {"__all__": {"seconds", "images_per_second"}}}
        found[mode] = [record.model_dump(exclude=timing) for record in taught]
        assert all(record.weights for record in taught)  # hashes of the files, compared below with the rest
    assert found["off"] == found["required"]
