"""Measured speeds in the store: whose they are, that one odd hour does not spoil them, and that losing them breaks nothing."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from crossdistill.core.records import EpochRow
from crossdistill.core.store import read_json, write_json
from crossdistill.core.study_file import parse_study
from crossdistill.core.types import ImageSet
from crossdistill.study.plan import make_plan
from crossdistill.study.timings import KEPT, known, note, note_epochs, observation_facts, training_facts

STUDY = """
name: timed
images: {source: trifeature}
networks:
  vit: {model: small/vit, width: 16, depth: 1, heads: 2}
  cnn: {model: small/resnet8}
pairs:
  - {teacher: vit, student: cnn, methods: [{name: kd, temperature: 8}]}
arms: [independent, shorter_independents]
training: {epochs: 5}
seeds: [0, 1]
"""
FACTS = {"task": "training", "network": "cnn"}


def facts(label: str, text: str = STUDY, *, cached: bool = False, **about: Any) -> dict[str, Any]:
    config = parse_study(text)
    images = ImageSet(np.zeros((200, 3, 16, 16), np.uint8), np.arange(200) % 2, np.arange(200).astype(str), ("a", "b"))
    splits = SimpleNamespace(train=images, validation=images, test=images, extra={})
    shop: Any = SimpleNamespace(config=config, splits=splits, device=torch.device("cpu"))
    plan = make_plan(config, "images", torch.device("cpu"))
    training = next(training for training in plan.trainings if training.label == label)
    return dict(training_facts(shop, replace(training, **about), cached=cached))


def test_the_median_of_the_last_measurements_is_told(tmp_path: Path) -> None:
    assert known(tmp_path, FACTS) is None
    for speed in (1.0, 1.0, 1.0, *[100.0] * (KEPT - 1), 7.0):
        note(tmp_path, FACTS, images_per_second=speed)
    assert known(tmp_path, FACTS) == {"images_per_second": 100.0}
    assert known(tmp_path, {**FACTS, "network": "vit"}) is None


def test_a_damaged_file_counts_as_none_and_is_written_anew(tmp_path: Path) -> None:
    note(tmp_path, FACTS, images_per_second=1.0)
    (file,) = (tmp_path / "timings").iterdir()
    file.write_text("{")
    assert known(tmp_path, FACTS) is None
    note(tmp_path, FACTS, images_per_second=2.0)
    assert known(tmp_path, FACTS) == {"images_per_second": 2.0}


@pytest.mark.parametrize("rows", [[1], ["a"], [{}], [{"images_per_second": "fast"}], [{"images_per_second": 0}], 3, {"a": 1}])
def test_what_is_no_measurement_is_left_out(rows: Any, tmp_path: Path) -> None:
    note(tmp_path, FACTS, images_per_second=1.0)
    (file,) = (tmp_path / "timings").iterdir()
    write_json(file, {**read_json(file), "measured": rows})
    assert known(tmp_path, FACTS) is None
    note(tmp_path, FACTS, images_per_second=2.0)
    assert known(tmp_path, FACTS) == {"images_per_second": 2.0}


def test_a_store_that_cannot_be_written_loses_the_measurement_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "timings").write_text("a file where the folder should be")
    note(tmp_path, FACTS, images_per_second=1.0)
    assert known(tmp_path, FACTS) is None


def test_seeds_epochs_and_the_studys_name_share_a_speed() -> None:
    first = facts("independent: cnn, seed 0")
    assert facts("independent: cnn, seed 1") == first
    assert facts("independent_40: cnn, seed 0") == first
    assert facts("independent: cnn, seed 0", STUDY.replace("name: timed", "name: other")) == first
    assert facts("independent: cnn, seed 0", STUDY + "preset: full\n") == first


@pytest.mark.parametrize(
    "edit",
    [
        ("epochs: 5", "epochs: 5, batch_size: 64"),
        ("temperature: 8", "temperature: 9"),
        ("width: 16", "width: 32"),
        ("epochs: 5", "epochs: 5, threads: 1"),
        ("epochs: 5", "epochs: 5, color: jitter"),
    ],
)
def test_what_decides_a_speed_has_its_own(edit: tuple[str, str]) -> None:
    label = "kd: vit -> cnn, seed 0"
    assert facts(label) != facts(label, STUDY.replace(*edit))


def test_live_and_stored_answers_and_a_control_have_speeds_of_their_own() -> None:
    label = "kd: vit -> cnn, seed 0"
    assert facts(label) != facts(label, cached=True)
    assert facts(label) != facts(label, control="shuffled_teacher")
    assert facts(label) != facts(label, teacher=None)


def test_a_resumed_training_tells_the_speed_of_its_steps_alone(tmp_path: Path) -> None:
    row = {"learning_rate": 0.1, "loss": 1.0, "terms": {}, "train_accuracy": None, "validation_accuracy": 0.5}
    history = [EpochRow(epoch=epoch, seconds=2.0, images_per_second=speed, **row) for epoch, speed in ((1, 100.0), (2, 50.0))]
    note_epochs(tmp_path, FACTS, history, 5.0, resumed=False, n_validation=20)
    assert known(tmp_path, FACTS) == {"images_per_second": 75.0, "between_epochs": 0.5, "validation_images": 20.0}
    other = {**FACTS, "network": "vit"}
    note_epochs(tmp_path, other, history, 1.0, resumed=True, n_validation=20)
    assert known(tmp_path, other) == {"images_per_second": 75.0}


def test_an_observation_is_of_a_network_a_size_and_a_batch() -> None:
    images = ImageSet(np.zeros((4, 3, 16, 16), np.uint8), np.arange(4) % 2, np.arange(4).astype(str), ("a", "b"))
    shop: Any = SimpleNamespace(config=parse_study(STUDY), splits=SimpleNamespace(test=images), device=torch.device("cpu"))
    assert observation_facts(shop, "vit", 1) != observation_facts(shop, "cnn", 1) != observation_facts(shop, "cnn", 2)
