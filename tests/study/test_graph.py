"""The plan as a graph: what depends on what, which keys a change touches, and that a run stamps what was planned."""

from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import torch

from crossdistill.core import registry
from crossdistill.core.progress import Progress
from crossdistill.core.store import cache_folder, read_json
from crossdistill.core.study_file import parse_study
from crossdistill.study.cost import planned_cost
from crossdistill.study.graph import STAGES, Node

STUDY = """
name: planned
images: {source: trifeature, side: 16, n_values: 2, n_train: 60, n_test: 20, n_conflict: 10}
networks:
  vit: {model: small/vit, width: 16, depth: 1, heads: 2}
  cnn: {model: small/resnet8}
pairs:
  - {teacher: vit, student: cnn, methods: [{name: kd, temperature: 8}, {name: dist, label: warm}]}
seeds: [0, 1]
primary: [{pair: 0, method: kd, probe: scramble}]
training: {epochs: 1, batch_size: 16, threads: 1, views: {crops: 1, flip: false}}
probes: [scramble]
observe: {instruments: [attention_distance]}
"""

ALWAYS = {"predictions", "metric", "tables", "page"}
"""What is made of all that was observed: made again whenever something was added."""

pytestmark = pytest.mark.usefixtures("tried")  # this page is about keys


def planned(text: str) -> dict[str, Any]:
    return planned_cost(parse_study(text), store=cache_folder(), progress=Progress(quiet=True), device=torch.device("cpu"))


def graph(text: str) -> list[Node]:
    return [Node(**{**node, "reads": tuple(node["reads"])}) for node in planned(text)["graph"]]


def keys(nodes: list[Node], *, always: bool = False) -> dict[str, str]:
    """{kind and label: key}, without what is made of everything unless `always`."""
    return {f"{node.kind} {node.label}": node.key for node in nodes if always or node.kind not in ALWAYS}


def touched(before: str, after: str) -> set[str]:
    """The tasks of the second study that the first has not done."""
    known = set(keys(graph(before)).values())
    return {name for name, key in keys(graph(after)).items() if key not in known}


def test_every_read_exists_and_nothing_waits_for_itself() -> None:
    nodes = graph(STUDY + "signal_gate: auto\narms: [independent, shuffled_teacher]\n")
    known = {node.key for node in nodes}
    assert all(set(node.reads) <= known for node in nodes)
    place = {key: number for number, key in enumerate(TopologicalSorter({node.key: node.reads for node in nodes}).static_order())}
    assert all(place[read] < place[node.key] for node in nodes for read in node.reads)
    assert {node.kind for node in nodes} == set(STAGES) - {"encoder", "warm_up"}
    assert [node.kind for node in nodes if not node.reads] == ["images"]
    assert [node.kind for node in nodes if not any(node.key in other.reads for other in nodes)] == ["page"]


def test_a_student_reads_its_images_its_teacher_and_its_answers() -> None:
    nodes = graph(STUDY.replace("epochs: 1", "epochs: 3"))
    by_key = {node.key: node for node in nodes}
    (student,) = [node for node in nodes if node.label == "kd: vit -> cnn, seed 1"]
    read = [by_key[key] for key in student.reads]
    assert [node.kind for node in read] == ["images", "teacher", "answers"]
    assert read[1].label == "teacher: vit, seed 1"
    assert read[2].label == "answers of vit, seed 1, to kd, warm"  # once for both


def test_a_methods_setting_makes_that_method_again_and_nothing_else() -> None:
    found = touched(STUDY, STUDY.replace("temperature: 8", "temperature: 9"))
    assert found == {
        f"{kind}kd: vit -> cnn, seed {seed}"
        for seed in (0, 1)
        for kind in (
            "student ",
            "observation clean by ",
            "observation conflict by ",
            "observation scramble by ",
            "instruments instruments on ",
        )
    }


def test_a_seed_adds_the_tasks_of_that_seed() -> None:
    found = touched(STUDY, STUDY.replace("seeds: [0, 1]", "seeds: [0, 1, 2]"))
    assert found
    assert all("seed 2" in name for name in found)


def test_a_probe_adds_its_set_its_observations_and_its_ceilings() -> None:
    found = touched(STUDY, STUDY.replace("[scramble]", "[scramble, hue]"))
    assert "probe hue" in found
    assert {name for name in found if "hue" not in name} == set()


def test_a_method_adds_its_students() -> None:
    found = touched(STUDY, STUDY.replace("label: warm}", "label: warm}, dkd"))
    assert found
    assert all("dkd: vit -> cnn" in name for name in found)


def test_a_metric_adds_itself_and_renews_tables_and_page(monkeypatch: pytest.MonkeyPatch) -> None:
    after, names = keys(graph(STUDY), always=True), registry.names
    monkeypatch.setattr(registry, "names", lambda kind: [name for name in names(kind) if name != "retention"])
    before = keys(graph(STUDY), always=True)
    changed = {name for name, key in after.items() if before.get(name) != key}
    assert changed == {"metric retention", "tables results, inheritance, transfer, similarity", "page report.html"}


def test_a_warm_up_and_an_encoder_stand_before_what_reads_them() -> None:
    text = STUDY.replace("{name: dist, label: warm}", "sskd").replace("[scramble]", "[scramble, stylized]")
    nodes = graph(text)
    by_kind = {node.kind: node for node in nodes}
    assert by_kind["warm_up"].key in next(node for node in nodes if node.label == "sskd: vit -> cnn, seed 1").reads
    assert by_kind["encoder"].key in next(node for node in nodes if node.label == "stylized").reads


def test_a_run_stamps_the_graph_that_was_planned(tmp_path: Path, command: Callable[..., int]) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    before = graph(STUDY)
    arguments = ("study", "run", tmp_path / "study.yaml", "--out", tmp_path / "out", "--quiet", "--only", "independent: cnn, seed 0")
    assert command(*arguments) == 0
    stamped = read_json(tmp_path / "out" / "plan.json")["graph"]
    assert stamped == [node.plain() for node in before]
    assert {tuple(node) for node in stamped} == {("kind", "label", "key", "reads")}  # no state and no time: the same for every call
