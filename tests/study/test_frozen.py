"""Studies with frozen backbones: which methods they leave out, what their page says of them, and what is refused at the start."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crossdistill.compare import read_table
from crossdistill.core.records import InheritanceRow, RunRecord
from crossdistill.core.store import read_json
from crossdistill.core.study_file import parse_study
from crossdistill.models._build import load_network
from crossdistill.study.plan import make_plan

STUDY = """\
images: {source: trifeature, n_values: 2, n_train: 80, n_test: 40, n_conflict: 20, side: 16}
networks:
  vit: {model: small/vit, width: 16, depth: 1, heads: 2}
  cnn: {model: small/resnet8}
teachers: {runs: 1, epochs: 1, freeze: null}
pairs:
  - {teacher: vit, student: cnn, methods: [similarity, kd, sskd]}
arms: [independent, twin]
seeds: [0]
training: {epochs: 2, batch_size: 16, threads: 1, precision: fp32, freeze: backbone, early_stopping: 1}
probes: [{name: scramble, levels: [{grid: 2}]}]
signal_gate: off
observe: {instruments: []}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "frozen.yaml"
    path.write_text(STUDY)
    return path


def test_methods_that_teach_features_are_left_out_and_the_page_says_why(file: Path, command: Callable[..., int], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command("study", "run", file, "--out", out, "--quiet") == 0
    plan = read_json(out / "plan.json")
    assert list(plan["left_out"]) == ["similarity: vit -> cnn", "sskd: vit -> cnn", "sskd+twin: cnn"]
    records = {record.arm: record for record in map(RunRecord.load, (out / "runs").iterdir())}
    assert records.keys() == {"teacher", "independent", "kd"}
    student, independent = (load_network(out / "runs" / records[arm].run / "network.safetensors") for arm in ("kd", "independent"))
    differ = {name for name, value in student.state_dict().items() if not torch.equal(value, independent.state_dict()[name])}
    assert differ <= {"model.head.fc.weight", "model.head.fc.bias"}  # one start, and a backbone that nothing moved
    assert differ
    assert re.fullmatch(r"epoch \d", records["kd"].evaluated_weights)
    assert records["teacher"].evaluated_weights == "epoch 1"
    assert records["kd"].training["warmup_epochs"] == 1
    declared = [row for row in read_table(out / "inheritance.parquet", InheritanceRow) if row.method != "kd"]
    assert [(row.method, row.probe, row.role, row.verdict) for row in declared] == [("similarity", "scramble", "primary", "not_measurable")]
    assert "the method was left out: it teaches the student's features (last)" in str(declared[0].reason)
    page = (out / "report.html").read_text()
    assert "The plan leaves out similarity: vit -&gt; cnn: it teaches the student&#39;s features" in page
    assert "Distilled with kd:" in page
    assert "This study is not finished" not in page


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (("[similarity, kd, sskd]", "[similarity, crd]"), "no method of this study can be used: similarity: vit -> cnn: it teaches"),
        (("freeze: backbone", "freeze: [layer]"), "small/resnet8 has no parameters under 'layer'. Did you mean 'layer"),
        (("freeze: null", "freeze: [blocks.7]"), "small/vit has no parameters under 'blocks.7'. Did you mean 'blocks.0"),
        (("freeze: backbone", "freeze: conv1"), "`backbone` stands here, or a list of names"),
    ],
)
def test_what_cannot_be_frozen_is_refused_before_anything_is_trained(
    file: Path, command: Callable[..., int], tmp_path: Path, capsys: Any, edit: tuple[str, str], message: str
) -> None:
    file.write_text(STUDY.replace(*edit))
    assert command("study", "run", file, "--out", tmp_path / "out", "--quiet") == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("runs/*"))


def plan(text: str) -> Any:
    return make_plan(parse_study(text), "images", torch.device("cpu"))


def test_first_layers_frozen_by_name_leave_all_methods_in_place(file: Path, command: Callable[..., int], capsys: Any) -> None:
    file.write_text(STUDY.replace("freeze: backbone", "freeze: [conv1, layer1]").replace("freeze: null", "freeze: [patch_embed]"))
    assert command("study", "plan", file, "--json") == 0
    output = capsys.readouterr()
    assert "left out" not in output.err
    assert "similarity: vit -> cnn, seed 0" in output.out


def test_what_is_frozen_belongs_to_the_key_of_a_training_and_not_to_its_warm_up() -> None:
    other = STUDY.replace("freeze: null", "freeze: backbone")
    first, second = plan(STUDY), plan(other)
    assert first.teachers[0].key != second.teachers[0].key
    assert [task.recipe.freeze for task in second.warm_ups] == [None]
    assert [task.recipe.early_stopping for task in second.warm_ups] == [None]
