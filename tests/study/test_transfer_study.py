"""A study with transfer images: they teach, and nothing that reads labels reads theirs."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from crossdistill.core.errors import SettingError
from crossdistill.core.progress import Progress
from crossdistill.core.records import RunRecord
from crossdistill.core.store import read_json
from crossdistill.core.study_file import parse_study
from crossdistill.core.types import UNLABELLED
from crossdistill.study.gates import training_images
from crossdistill.study.objectives import partners_of
from crossdistill.study.splits import study_splits
from crossdistill.study.workshop import Workshop

STUDY = """\
name: transfer
images: {{source: trifeature, n_values: 2, n_train: 60, n_test: 24, n_conflict: 10, side: 16, transfer: "folder:{photos}"}}
networks:
  vit: {{model: small/vit, width: 16, depth: 1, heads: 2}}
  cnn: {{model: small/resnet8}}
teachers: {{runs: 1}}
pairs:
  - {{teacher: vit, student: cnn, methods: [kd]}}
seeds: [0]
training: {{epochs: 1, batch_size: 16, threads: 1, precision: fp32}}
probes: [{{name: scramble, levels: [{{grid: 4}}]}}]
signal_gate: off
observe: {{instruments: []}}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    photos = tmp_path / "photos" / "any"
    photos.mkdir(parents=True)
    for row in range(30):
        pixels = np.random.default_rng(row).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{row:02}.png")
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.format(photos=photos.parent))
    return path


def test_it_trains_on_all_images_and_counts_what_has_a_label(study: Path, tmp_path: Path, command: Callable[..., int]) -> None:
    assert command("study", "run", study, "--out", tmp_path / "out", "--quiet") == 0
    records = {record.arm: record for path in (tmp_path / "out" / "runs").iterdir() if (record := RunRecord.load(path))}
    assert (
        read_json(tmp_path / "out" / "plan.json")["images"] | {"train": 84, "unlabelled": 30}
        == (read_json(tmp_path / "out" / "plan.json")["images"])
    )
    assert records["teacher"].estimates["train_accuracy"].n == 54
    assert records["kd"].history[0].terms.keys() == {"ce", "kd"}


def test_what_reads_labels_gets_labelled_images_only(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = study_splits(parse_study(study.read_text()), Progress(quiet=True))
    assert (splits.train.labels == UNLABELLED).sum() == 30
    shown: dict[str, Any] = {}
    monkeypatch.setattr("crossdistill.study.gates.shared_out", lambda shop, probe, split, images, levels: shown.setdefault(split, images))
    monkeypatch.setattr("crossdistill.study.gates.probed", lambda *arguments: None)
    sets = {"scramble": SimpleNamespace(levels=[{"grid": 4}], level_names=["grid=4"], sizes=[(16, 16)])}
    shop = cast(Workshop, SimpleNamespace(splits=splits, probe_sets=sets, config=SimpleNamespace(seed=0)))
    monkeypatch.setattr("crossdistill.study.gates._level_numbers", lambda *arguments: [0])
    training_images(shop, cast(Any, SimpleNamespace(probe="scramble", level=None)))
    assert len(shown["train"]) == 54
    assert (shown["train"].labels >= 0).all()


def test_the_arm_shuffled_teacher_is_refused(study: Path) -> None:
    splits = study_splits(parse_study(study.read_text()), Progress(quiet=True))
    shop = cast(Workshop, SimpleNamespace(splits=splits, config=SimpleNamespace(seed=0)))
    with pytest.raises(SettingError, match="each needs a label \\(transfer images have none\\)"):
        partners_of(shop, cast(Any, SimpleNamespace(control="shuffled_teacher", role="student", seed=0)))
