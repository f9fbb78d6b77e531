"""A study on Ray has the bytes of the local executor, whoever is killed or stopped on the way; what cannot be is said in one sentence."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY, MagicMock, call

import pytest
import torch
import yaml

from crossdistill.core.errors import CrossdistillError, SettingError, StudyError
from crossdistill.core.progress import Progress
from crossdistill.core.store import is_locked, locked, read_json
from crossdistill.core.study_file import parse_study
from crossdistill.core.workers import WorkerEnded
from crossdistill.study import ray_cluster, ray_task
from crossdistill.study.execute import run_study
from crossdistill.study.plan import Plan, make_plan

STUDY = """\
name: cluster
images: {source: trifeature, n_values: 2, n_train: 160, n_test: 60, n_conflict: 40, side: 16}
networks:
  vit: {model: small/vit, width: 16, depth: 1, heads: 2}
  cnn: {model: small/resnet8}
teachers: {epochs: 2}
pairs:
  - {teacher: vit, student: cnn, methods: [kd]}
seeds: [0]
training: {epochs: 8, batch_size: 16, threads: 1, precision: fp32, checkpoint_every: 4 steps}
probes: [{name: scramble, levels: [{grid: 2}]}]
signal_gate: off
observe: {instruments: []}
resources: {cpus: 2}
"""
"""Ray sets OMP_NUM_THREADS to the CPUs that a task asks for: 2, while the recipe has 1, as every training must."""
NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 80 * 2**20}
DOCS = Path(__file__).parents[2] / "docs" / "cluster.md"
Command = Callable[..., int]


def plan_of(text: str, device: str = "cpu") -> Plan:
    return make_plan(parse_study(text), "images", torch.device(device))


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The machines of a Ray cluster that is none; to be changed by the test."""
    nodes = [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0}}, {"Alive": True, "Resources": {"CPU": 8.0}}]
    monkeypatch.setattr(ray_cluster, "ray_module", lambda: SimpleNamespace(nodes=lambda: nodes))
    return nodes


def test_a_request_that_no_machine_ever_meets_is_refused(machines: list[dict[str, Any]]) -> None:
    asking = STUDY.replace("{cpus: 2}", "{cpus: 9}")
    with pytest.raises(SettingError, match="each training asks for 9 CPUs and 0 GPUs, and no machine .* has as much: they have 4 CPUs"):
        ray_cluster.refuse_impossible(plan_of(asking), torch.device("cpu"))
    with pytest.raises(SettingError, match="asks for 6 CPUs and 1 GPUs"):  # the CPUs of one, the GPUs of another
        ray_cluster.refuse_impossible(plan_of(STUDY.replace("cpus: 2", "cpus: 6"), "cuda"), torch.device("cuda"))
    machines[1]["Alive"] = False
    with pytest.raises(SettingError, match="asks for 5 CPUs"):
        ray_cluster.refuse_impossible(plan_of(STUDY.replace("cpus: 2", "cpus: 5")), torch.device("cpu"))


def test_room_is_counted_machine_by_machine(machines: list[dict[str, Any]]) -> None:
    room = {
        asked: ray_cluster.refuse_impossible(plan_of(STUDY.replace("{cpus: 2}", asked), device), torch.device(device))
        for asked, device in (("{}", "cpu"), ("{cpus: 3}", "cpu"), ("{cpus: 2}", "cuda"), ("{cpus: 0.1, gpus: 0.1}", "cuda"))
    }
    # By its threads a training asks for 1 CPU: 4 + 8. For 3: 1 + 2. GPUs are on the first machine alone: 2, and 20 tenths.
    assert room == {"{}": 12, "{cpus: 3}": 3, "{cpus: 2}": 2, "{cpus: 0.1, gpus: 0.1}": 20}


def test_gpus_that_no_training_could_use_are_refused(machines: list[dict[str, Any]]) -> None:
    refusals = {"{gpus: 2}": "a training uses one GPU, or a part of one", "{gpus: 0}": "hides all GPUs from the trainings"}
    for resources, words in refusals.items():
        with pytest.raises(SettingError, match=words):
            ray_cluster.refuse_impossible(plan_of(STUDY.replace("{cpus: 2}", resources), "cuda"), torch.device("cuda"))
    with pytest.raises(SettingError, match="names one GPU of this machine"):
        ray_cluster.refuse_impossible(plan_of(STUDY), torch.device("cuda:1"))


def test_ray_that_is_not_installed_is_said_in_one_sentence(
    command: Command, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert command("study", "run", tmp_path / "study.yaml", "--out", tmp_path / "out", "--executor", "ray") == 2
    assert capsys.readouterr().err == "crossdistill: --executor ray needs Ray, which is not installed: pip install 'crossdistill[ray]'\n"
    assert not (tmp_path / "out" / "study.yaml").exists()


def test_a_cluster_that_is_not_there_is_said_in_one_sentence(
    command: Command, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    (tmp_path / "study.yaml").write_text(STUDY)
    for options, words in {
        (): r"no Ray cluster answers at --address auto \(.*refused\): `ray start --head` starts one",
        ("--address", "ray://127.0.0.1:9"): r"no Ray cluster answers at --address ray://127.0.0.1:9 \(.*refused\)",
        ("--address", "elsewhere"): "--address takes auto, local or ray://HOST:PORT, got 'elsewhere'",
        ("--devices", 2): "--executor ray is for trainings on one device each",
    }.items():
        assert command("study", "run", tmp_path / "study.yaml", "--out", tmp_path / "out", "--executor", "ray", *options) == 2
        told = capsys.readouterr().err
        assert re.match(f"crossdistill: {words}", told)
        assert told.count("\n") == 1
    assert command("study", "run", tmp_path / "study.yaml", "--out", tmp_path / "out", "--address", "auto") == 2
    assert "say --executor ray as well" in capsys.readouterr().err
    assert not (tmp_path / "out" / "study.yaml").exists()


def test_a_folder_that_is_not_shared_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_task, "APPEARS_S", 0.0)
    with ray_cluster.marked(tmp_path) as mark:
        holder = f"import time; from pathlib import Path; from crossdistill.core.store import locked\nwith locked(Path('{mark}-2'), ''): print('held', flush=True); time.sleep(60)"  # noqa: E501
        with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            assert ray_task.unshared([Path(f"{mark}-2")]) is None
            other.kill()
    assert not mark.exists()
    assert "is not there as the driver sees it" in (ray_task.unshared([mark]) or "")
    with locked(tmp_path / "mark", ""):
        pass
    assert f"locks in {tmp_path} are not shared" in (ray_task.unshared([tmp_path / "mark"]) or "")


def test_a_worker_without_the_studys_device_says_so() -> None:
    assert ray_task.missing_device(torch.device("cpu")) is None
    if not torch.cuda.is_available():
        assert "this process was given none" in (ray_task.missing_device(torch.device("cuda")) or "")


def test_how_a_task_ended_is_told_in_the_words_of_a_study() -> None:
    exceptions = pytest.importorskip("ray").exceptions
    from crossdistill.study.ray_executor import how_it_ended

    def told(error: BaseException | None = None, answer: Any = None) -> BaseException | None:
        future: Future[Any] = Future()
        future.set_exception(error) if error else future.set_result(answer)
        return how_it_ended("kd, seed 0", future)

    assert told() is None
    own = CrossdistillError("its own")
    assert told(answer=own) is own
    assert told(own) is own  # through ray://, where Ray raises a result that is an error
    for lost, words in (
        (exceptions.WorkerCrashedError(), "it crashed or was killed"),
        (exceptions.TaskCancelledError(), "it was asked to stop"),
        (exceptions.OutOfMemoryError("at 99 %"), "the memory of its machine was full"),
        (exceptions.NodeDiedError("gone"), "its machine was lost"),
    ):
        ended = told(lost)
        assert isinstance(ended, WorkerEnded)
        assert str(ended) == words
    for lost in (exceptions.RuntimeEnvSetupError("no room"), ConnectionError("Client is shutting down.")):
        other = told(lost)
        assert type(other) is StudyError
        assert str(other).startswith("Ray could not carry out kd, seed 0: ")


def test_a_file_that_a_machine_cannot_use_ends_the_study_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(training: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/shared/out")

    opened = SimpleNamespace(progress=ray_task.ReportedProgress(quiet=True)), work
    monkeypatch.setattr(ray_task, "_opened", lambda study: opened)
    monkeypatch.setattr(ray_task, "_wait_for_the_last_line", lambda reports: None)
    error = ray_task.carry_out(b"", MagicMock(), plan_of(STUDY).trainings[0])
    assert type(error) is StudyError
    assert str(error) == f"teacher: vit, seed 0: {os.uname().nodename} cannot use /shared/out: Permission denied"


def test_a_cluster_that_is_lost_ends_the_study_and_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    exceptions = pytest.importorskip("ray").exceptions
    from crossdistill.study import ray_executor

    ray, answer = MagicMock(exceptions=exceptions), Future[Any]()
    ray.get.return_value = ([], [])
    ray.remote.return_value.return_value.options.return_value.remote.return_value.future.return_value = answer
    monkeypatch.setattr(ray_executor, "ray_module", lambda: ray)
    monkeypatch.setattr(ray_executor.pickle, "dumps", lambda study: b"")
    plan = plan_of(STUDY)
    shop: Any = SimpleNamespace(config=plan.config, device=torch.device("cpu"), progress=Progress(quiet=True))
    tasks = ray_executor.RayTasks(shop, study=MagicMock())
    future = tasks.submit(plan.trainings[0])
    ray.cancel.side_effect = ConnectionError("Client is shutting down.")  # it is being lost
    tasks.stop()
    assert ray.cancel.call_args_list == [call(ANY, force=False), call(ANY, force=True)]
    ray.is_initialized.return_value = False
    ray.get.side_effect = ray.cancel.side_effect = AssertionError  # would connect to another cluster
    assert tasks.look() == []
    tasks.stop()
    answer.set_exception(ConnectionError("Failed to reconnect"))
    with pytest.raises(StudyError, match="Ray could not carry out teacher: vit, seed 0: Failed to reconnect"):
        future.result(timeout=1)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSDISTILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield dict(os.environ)


@pytest.fixture(scope="module")
def undisturbed(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study by the local executor."""
    folder = tmp_path_factory.mktemp("undisturbed")
    about = {"device": torch.device("cpu"), "progress": Progress(quiet=True)}
    assert not run_study(parse_study(STUDY), folder / "out", store=folder / "store", **about).failures
    return folder


@pytest.fixture(scope="module")
def cluster(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """A Ray cluster of two nodes; gives the environment of a driver that finds it."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        nodes.add_node(**NODE)
        yield {**environment, "RAY_ADDRESS": str(nodes.address)}
    finally:
        nodes.shutdown()


class Driver:
    """`crossdistill study run --executor ray` on the cluster."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.out, self.store = folder / "out", folder / "store"
        (folder / "study.yaml").write_text(STUDY)
        where = ["--out", self.out, "--store", self.store, "--executor", "ray"]
        command = [sys.executable, "-m", "crossdistill", "study", "run", folder / "study.yaml", *where]
        self.process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment)

    def half_trained(self, *arms: str) -> tuple[Path, int]:
        """A student at work of one of these arms, that has saved its state, and its worker process; waits for one."""
        deadline = time.monotonic() + 300
        while True:
            for saved in self.out.glob("runs/*/checkpoint/step-*"):
                folder = saved.parents[1]
                if folder.name.startswith(arms) and (worker := holder(folder)) and not (folder / "record.json").exists():
                    return folder, worker
            assert time.monotonic() < deadline
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.01)

    def held(self) -> list[Path]:
        return [lock.parent for root in (self.out / "runs", self.store) for lock in root.rglob(".lock") if is_locked(lock.parent)]

    def end(self, code: int) -> str:
        """Wait for its end with that exit code; gives what it told."""
        _, told = self.process.communicate(timeout=300)
        assert self.process.returncode == code, told
        return told


def holder(folder: Path) -> int | None:
    """The process that holds a folder."""
    inode = str((folder / ".lock").stat().st_ino) if (folder / ".lock").exists() else ""
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "FLOCK" in fields and fields[5].split(":")[-1] == inode:
            return int(fields[4])
    return None


linux = pytest.mark.skipif(not Path("/proc/locks").exists(), reason="finds the worker that holds a lock where Linux tells it")


@linux
def test_a_worker_killed_on_a_cluster_of_two_nodes_leaves_the_bytes_of_the_local_executor(
    cluster: dict[str, str], undisturbed: Path, tmp_path: Path, without_timing: Any
) -> None:
    driver = Driver(tmp_path, cluster)
    killed, worker = driver.half_trained("independent", "kd")
    os.kill(worker, signal.SIGKILL)
    told = driver.end(0)
    assert "its process has ended (it crashed or was killed) and is started once more" in told
    assert "going on from step" in told
    assert (killed / "record.json").exists()
    assert (driver.out / "results.parquet").read_bytes() == (undisturbed / "out" / "results.parquet").read_bytes()
    assert without_timing(driver.out) == without_timing(undisturbed / "out")
    labels = re.findall(r"^\[\d/3\] (training|done:) (.*?)(?:, about.*|: validation.*)?$", told, flags=re.MULTILINE)
    assert sorted(labels) == sorted((word, label) for label in _labels() for word in ("training", "done:"))
    phases = read_json(driver.out / "phases.json")
    assert (phases["executor"], phases["jobs"]) == ("ray", 2)
    local = read_json(undisturbed / "out" / "phases.json")
    assert (local["executor"], local["jobs"], local["format"]) == ("local", 1, 1)
    assert set(local["timing"]) == {"images", "probes", "trainings", "tables", "page", "total"}
    assert sum(local["timing"].values()) <= 2 * local["timing"]["total"]
    assert not list(tmp_path.glob("*/.driver-*"))


def _labels() -> list[str]:
    return [training.label for training in plan_of(STUDY).trainings]


@linux
def test_a_driver_that_is_stopped_or_killed_leaves_what_any_executor_goes_on_from(
    cluster: dict[str, str], undisturbed: Path, tmp_path: Path, without_timing: Any
) -> None:
    driver = Driver(tmp_path, cluster)
    stopped, _ = driver.half_trained("independent")
    driver.process.send_signal(signal.SIGTERM)
    told = driver.end(130)
    assert "stopping: what is being trained is saved after its step" in told
    assert "the same command goes on from there" in told
    assert "Traceback" not in told
    assert not driver.held()
    assert not (stopped / "record.json").exists()

    driver = Driver(tmp_path, cluster)
    driver.half_trained("kd")
    driver.process.kill()
    driver.end(-signal.SIGKILL)
    deadline = time.monotonic() + 20
    while driver.held():  # no worker goes on writing for long
        assert time.monotonic() < deadline
        time.sleep(0.1)

    about = {"device": torch.device("cpu"), "progress": Progress(quiet=True)}
    assert not run_study(parse_study(STUDY), driver.out, store=driver.store, **about).failures
    assert without_timing(driver.out) == without_timing(undisturbed / "out")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_manifest_and_the_scripts_of_the_guide_can_be_read(tmp_path: Path) -> None:
    scripts = blocks("bash")
    assert sum("#SBATCH" in script for script in scripts) == 1
    for script in scripts:
        (tmp_path / "script").write_text(script)
        checked = subprocess.run(["bash", "-n", str(tmp_path / "script")], capture_output=True, text=True)
        assert not checked.returncode, checked.stderr
    manifests = [document for block in blocks("yaml") for document in yaml.safe_load_all(block) if "kind" in document]
    (job,) = [document for document in manifests if document["kind"] == "RayJob"]
    pods = [job["spec"]["rayClusterSpec"]["headGroupSpec"], *job["spec"]["rayClusterSpec"]["workerGroupSpecs"]]
    mounts = [mount["name"] for pod in pods for box in pod["template"]["spec"]["containers"] for mount in box["volumeMounts"]]
    assert len(mounts) == len(pods)
    assert "--executor ray --address auto" in job["spec"]["entrypoint"]
    assert json.dumps(manifests)
