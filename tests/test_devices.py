"""Trainings that two processes share, against the same by one process; the processes of a study, started, stopped and gone on with."""

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import SettingError
from crossdistill.core.records import RunRecord
from crossdistill.core.study_file import parse_study
from crossdistill.models._build import load_network
from crossdistill.study.devices import own_device
from crossdistill.study.launch import _name_the_killed, device_count, launch, refuse_other_count, with_devices

SCRIPT = Path(__file__).parent / "devices_trainings.py"
ONE = runpy.run_path(str(SCRIPT))
CLOSE = 1e-4  # float32: sums in another order, on any machine; where a term stays within its rank the log differs by 2e-3 and more

STUDY = """\
name: shared
images: {source: trifeature, n_values: 2, n_train: 128, n_test: 40, n_conflict: 20, side: 16}
networks:
  teacher: {model: small/vit, width: 16, depth: 1, heads: 2}
  student: {model: small/vit, width: 16, depth: 2, heads: 2, drop_path: 0}
teachers: {runs: 1, epochs: 1, devices: 1}
pairs:
  - {teacher: teacher, student: student, methods: [{name: sskd, warm_up_epochs: 1}]}
seeds: [0]
training: {epochs: 4, batch_size: 16, threads: 1, precision: fp32, optimizer: sgd, checkpoint_every: 1 steps}
probes: [{name: scramble, levels: [{grid: 4}]}]
signal_gate: off
observe: {instruments: []}
"""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **more}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, str(SCRIPT), str(folder)]
    processes = [subprocess.Popen(command, env=environment(RANK=str(rank), WORLD_SIZE="2")) for rank in range(2)]
    try:
        assert [process.wait(timeout=240) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("name", ONE["CASES"])
def test_two_processes_train_as_one_does_with_the_same_batch(two: list[dict[str, Any]], tmp_path: Path, name: str) -> None:
    torch.set_num_threads(1)
    one, first, second = ONE["trained"](name, tmp_path), two[0][name], two[1][name]
    for expected, row in zip(one["log"], first["log"], strict=True):
        assert row == pytest.approx(expected, rel=CLOSE, abs=CLOSE)
    torch.testing.assert_close(first["student"], one["student"], rtol=0, atol=CLOSE)
    torch.testing.assert_close(first["module"], one["module"], rtol=CLOSE, atol=CLOSE)  # banks, and estimates in the thousands
    assert same(first["student"], second["student"]), "the ranks went apart"
    assert same(first["module"], second["module"]), "banks, projectors or a discriminator went apart"


def test_what_is_sent_is_what_the_whole_batch_has(two: list[dict[str, Any]]) -> None:
    first, second = (found["exchanged"] for found in two)
    whole = torch.tensor([[1.0, 2.0], [3.0, 4.0], [11.0, 12.0], [13.0, 14.0]])
    for found in (first, second):
        assert torch.equal(found["gathered"], whole)
        assert found["integers"].tolist() == [0, 1]
        mean, of_one, of_none = found["gradients"]  # mean of (1, 3) and (2, 6); of nothing and (4, 8); of nothing at all
        assert (mean.tolist(), of_one.tolist(), of_none) == ([1.5, 4.5], [2.0, 4.0], None)
        assert found["averaged"].item() == 0.5
        assert (found["agreed"], found["from_first"], found["told"]) == ([False, True], 0.5, "from 0")
        assert found["together"] == 2
    # d/dx of 1 x1^2 + 2 x2^2 + 3 x3^2 + 4 x4^2, which both ranks took: twice over, and `average_gradients` halves it.
    gradient = torch.cat([first["gradient"], second["gradient"]])
    assert torch.equal(gradient / 2, 2 * whole * torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    torch.manual_seed(0)
    assert torch.equal(torch.cat([first["drawn"], second["drawn"]]), torch.rand(4, 2))
    assert torch.cat([first["own"], second["own"]]).tolist() == list(range(8))
    assert (first["alone"], second["alone"]) == ([1, False], [1, True])


def test_the_first_process_prepares_and_its_refusal_is_everybodys(two: list[dict[str, Any]]) -> None:
    first, second = (found["prepared"] for found in two)
    assert (first["there"], second["there"]) == (False, True)
    assert first["refused by 0"] == second["refused by 0"] == "SettingError: no, says 0"
    assert first["refused by 1"].startswith("StudyError: another of the processes")
    assert second["refused by 1"] == "SettingError: no, says 1"


def test_batches_that_cannot_be_shared_are_refused_at_start(two: list[dict[str, Any]]) -> None:
    other_world, odd, odd_parts = two[0]["refused"]
    assert other_world.startswith("this training is shared by 3 devices, and 2 of its processes are here")
    assert odd.startswith("a batch of 15 images cannot be shared evenly by 2 devices: set `batch_size` to a multiple of 2")
    assert odd_parts.startswith("a batch of 12 images in 4 micro-batches cannot be shared evenly by 2 devices")


def test_a_loss_that_breaks_on_one_rank_ends_the_training_on_all(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert found["diverged"].startswith("DivergedError: training: the loss or its gradient was not finite at step 0")


def test_broken_off_and_begun_again_is_undisturbed_bit_for_bit(two: list[dict[str, Any]]) -> None:
    undisturbed, resumed = two[0]["undisturbed"], two[0]["resumed"]
    assert same(undisturbed["student"], resumed["student"])
    assert same(undisturbed["module"], resumed["module"])
    assert undisturbed["log"] == resumed["log"]
    assert resumed["batch_norm"] == "each device's own"  # there is no GPU in it


def test_the_same_training_gives_the_same_bytes(two: list[dict[str, Any]]) -> None:
    assert same(two[0]["capd"]["student"], two[0]["again"]["student"])


def wait_for(pattern: str, folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no {pattern} in {folder}"
        time.sleep(0.01)


def test_a_study_on_two_devices_is_stopped_goes_on_and_ends_as_on_one(
    command: Callable[..., int], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    study, out = tmp_path / "study.yaml", tmp_path / "two"
    study.write_text(STUDY)
    one = ["study", "run", str(study), "--out", str(tmp_path / "one"), "--store", str(tmp_path / "store-one"), "--quiet"]
    assert command(*one) == 0
    study.write_text(STUDY.replace("training: {", "training: {devices: 2, "))  # the teacher and the warm-up keep one
    shared = ["study", "run", str(study), "--out", str(out), "--store", str(tmp_path / "store-two"), "--quiet"]
    spaced = tmp_path / "a folder"  # where the processes meet
    spaced.mkdir()
    command_line, env = [sys.executable, "-m", "crossdistill", *shared], environment(TMPDIR=str(spaced))
    process = subprocess.Popen(command_line, stderr=subprocess.PIPE, text=True, env=env)
    wait_for("runs/sskd-*/checkpoint/step-*", out, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.count("the same command goes on from there") == 1
    assert "Traceback" not in errors
    finished = {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*/network.safetensors")}
    assert not list((out / "runs").glob("sskd-*/record.json"))
    assert command(*shared) == 0
    assert capfd.readouterr().out.split()[-1] == str(out / "report.html")
    assert finished == {path: path.stat().st_mtime_ns for path in finished}
    by_arm = [{record.arm: record for record in map(RunRecord.load, (folder / "runs").iterdir())} for folder in (tmp_path / "one", out)]
    for arm in ("teacher", "independent", "sskd"):
        alone, both = (records[arm] for records in by_arm)
        assert both.estimates["validation_accuracy"] == alone.estimates["validation_accuracy"]
        assert (alone.training["devices"], both.training["devices"]) == (1, 1 if arm == "teacher" else 2)
        assert both.batch_norm is None  # a ViT has none
    students = [load_network(next((folder / "runs").glob("sskd-*")) / "network.safetensors") for folder in (tmp_path / "one", out)]
    torch.testing.assert_close(students[0].state_dict(), students[1].state_dict(), rtol=0, atol=CLOSE)


def test_the_exit_code_of_several_processes_is_that_of_the_first(capfd: pytest.CaptureFixture[str]) -> None:
    assert launch(["list", "methods"], 2) == 0
    assert capfd.readouterr().out.count("frequency_alignment") == 1  # the first alone prints
    assert launch(["list", "nothing"], 2) == 2


def test_a_process_that_was_killed_is_named_since_it_could_not_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    alive, killed = processes = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    try:
        killed.kill()
        killed.wait()
        _name_the_killed(processes)
        assert capsys.readouterr().err.startswith("crossdistill: process 2 of 2 was ended by SIGKILL")
    finally:
        alive.kill()
        alive.wait()


def shared_study(text: str = STUDY) -> StudyConfig:
    return parse_study(text, source="a test")


def test_devices_on_the_command_line_are_those_of_every_training() -> None:
    config = shared_study()
    assert device_count(config) == 1
    config = with_devices(config, 4)
    assert [config.recipe("teacher", teacher=True).devices, config.recipe("student").devices, device_count(config)] == [4, 4, 4]


def test_two_numbers_of_devices_in_a_study_are_refused() -> None:
    text = STUDY.replace("devices: 1", "devices: 3").replace("training: {", "training: {devices: 2, ")
    with pytest.raises(SettingError, match="1 device or one other number, got `devices` 2 and 3"):
        device_count(shared_study(text))


def test_processes_that_torchrun_started_must_be_as_many_as_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_other_count(1)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    refuse_other_count(2)
    with pytest.raises(SettingError, match="2 processes were started together and the trainings of this study use 4"):
        refuse_other_count(4)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):  # quietly: the first process has said it
        refuse_other_count(4)


def test_more_devices_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SettingError, match="2 devices were asked for and this machine has 1 GPUs"):
        own_device(torch.device("cuda"))
    assert own_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_device(torch.device("cuda")) == torch.device("cuda", 0)
