import numpy as np
import torch

from crossdistill.export.latency import BATCHES, FEWEST, _timing, measured_costs, size_rows
from crossdistill.export.student import Student, Teacher
from crossdistill.models._build import build_network, save_network


def test_the_interval_of_a_median_holds_it():
    timing = _timing("torch", 4, np.array([1.0, 1.1, 0.9, 1.0, 50.0, 1.05, 0.95]))
    assert timing.median_ms == 1.0
    assert 0.9 <= timing.low_ms <= 1.0 <= timing.high_ms
    assert timing.repeats == 7


def test_student_and_teacher_are_measured_alike(tmp_path, monkeypatch):
    monkeypatch.setattr("crossdistill.export.latency.SECONDS", 0.0)
    torch.manual_seed(0)
    networks = {name: build_network(name, 3, (16, 16)).eval() for name in ("small/resnet8", "small/vgg")}
    paths = {}
    for name, network in networks.items():
        paths[name] = tmp_path / f"{name.replace('/', '-')}.safetensors"
        save_network(network, paths[name], class_names=["a", "b", "c"])
    student = Student(networks["small/resnet8"], paths["small/resnet8"], "hash", ("a", "b", "c"), (16, 16))
    found = measured_costs(student, Teacher(networks["small/vgg"], paths["small/vgg"]), None, torch.device("cpu"))
    own, teacher = found["costs"]
    assert (own["who"], own["model"], teacher["who"], teacher["model"]) == ("student", "small/resnet8", "teacher", "small/vgg")
    for cost, network in zip(found["costs"], networks.values(), strict=True):
        assert cost["parameters"] == network.n_parameters
        assert cost["file_bytes"] > 4 * network.n_parameters
        assert [timing["batch"] for timing in cost["timings"]] == list(BATCHES)
        assert all(
            timing["repeats"] >= FEWEST and 0 < timing["low_ms"] <= timing["median_ms"] <= timing["high_ms"] for timing in cost["timings"]
        )
    assert found["threads"] == torch.get_num_threads()
    assert found["hardware"]["device"] == "cpu"


def test_flops_that_nobody_can_count_are_not_known():
    cost = {"who": "student", "model": "mine", "parameters": 10, "file_bytes": 40, "flops": None}
    assert size_rows({"costs": [cost, {**cost, "flops": 1500000}]}) == [
        ["student", "mine", "10", "0.00 MB", "not known"],
        ["student", "mine", "10", "0.00 MB", "1.5 M"],
    ]
