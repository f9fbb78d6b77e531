"""A Ray cluster: how it is reached, what is asked of it for a training, and whether its machines can take part in a study."""

import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any

import torch

from crossdistill.core.config import StudyConfig
from crossdistill.core.errors import SettingError, StudyError
from crossdistill.core.recipe import TrainingConfig
from crossdistill.core.store import cache_folder, locked
from crossdistill.study.environment import hardware, software
from crossdistill.study.plan import Plan
from crossdistill.study.ray_task import look_around
from crossdistill.study.workshop import Workshop

OBJECT_STORE = 100 * 2**20  # bytes, of a Ray that is started here: what tasks are sent and send is small
ANSWER_S = 10.0  # for a cluster to take up a connection
LOOK_AROUND_S = 180.0  # for a machine to start a process and import torch, from a slow disk too


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Within the block this process is a driver on a Ray cluster: `auto`, this machine's; ray://HOST:PORT; or `local`, one started
    for the block.

    Where it is one already, that connection is used and kept. Raises SettingError where Ray is not installed or the address is none of
    these, and StudyError where no cluster answers.
    """
    ray = ray_module()
    if address not in ("auto", "local") and not address.startswith("ray://"):
        raise SettingError(f"--address takes auto, local or ray://HOST:PORT, got '{address}'")
    if ray.is_initialized():
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):  # Ray tells there of workers that end; standard output is the command's own
        _connect(ray, address)
        try:
            yield
        finally:
            ray.shutdown()


def ray_module() -> Any:
    """Ray, which is an optional extra. Raises SettingError where it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise SettingError("--executor ray needs Ray, which is not installed: pip install 'crossdistill[ray]'") from error
    return ray


def _connect(ray: Any, address: str) -> None:
    own: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        own |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE}
    before = signal.getsignal(signal.SIGTERM)
    try:
        _refuse_silence(address)
        ray.init(address=address, **own)
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        hint = (
            "`ray start --head` starts one, --address local starts one for this run alone" if address != "local" else "try --executor local"
        )
        raise StudyError(f"no Ray cluster answers at --address {address} ({last_words(error)}): {hint}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own would end this process before it could tell the workers to save


def _refuse_silence(address: str) -> None:
    """Raises OSError where nobody listens at the address of a cluster: Ray would wait for it, and for one on this machine for ever."""
    noted = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()), "ray", "ray_current_cluster")  # by `ray start`, also of one that died
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or (noted.read_text().strip() if noted.exists() else "")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()


def request(config: StudyConfig, recipe: TrainingConfig, device: torch.device) -> dict[str, float]:
    """What one training asks of the cluster: CPUs and GPUs, by Ray's names.

    >>> from crossdistill.core.config import ResourcesConfig
    >>> from types import SimpleNamespace
    >>> request(SimpleNamespace(resources=ResourcesConfig(gpus=0.5)), TrainingConfig(threads=3), torch.device("cuda"))
    {'CPU': 3.0, 'GPU': 0.5}
    """
    asked = config.resources
    gpus = asked.gpus if asked.gpus is not None else float(device.type == "cuda")
    return {"CPU": float(asked.cpus or recipe.threads), "GPU": float(gpus)}


def refuse_impossible(plan: Plan, device: torch.device) -> int:
    """How many trainings the cluster has room for at once, as it is now.

    Raises SettingError for a device or a request that cannot be, and where none of its machines could ever meet a request: Ray would
    wait for one that can.
    """
    nodes = [node["Resources"] for node in ray_module().nodes() if node["Alive"]]
    requests = [request(plan.config, training.recipe, device) for training in (*plan.trainings, *plan.ceilings)]
    for asked in requests:
        if device.index is not None:
            raise SettingError(f"--device {device} names one GPU of this machine, and Ray chooses those of the cluster: give --device cuda")
        if asked["GPU"] > 1:
            raise SettingError(f"`resources: {{gpus: {asked['GPU']:g}}}`: a training uses one GPU, or a part of one; give at most 1")
        if device.type == "cuda" and not asked["GPU"]:
            raise SettingError("`resources: {gpus: 0}` hides all GPUs from the trainings: ask for a part of one, or give --device cpu")
        if not any(_room(node, asked) for node in nodes):
            largest = "; ".join(sorted({_named(node) for node in nodes}))
            raise SettingError(
                f"each training asks for {_named(asked)}, and no machine of the Ray cluster has as much: they have {largest}. Lower "
                "`resources:` or `threads:` in the study file, or add a machine"
            )
    return min(sum(_room(node, asked) for node in nodes) for asked in requests)


def _room(node: Mapping[str, float], asked: Mapping[str, float]) -> int:
    """How many such requests a machine meets at once."""
    return int(min(node.get(name, 0.0) / amount + 1e-9 if amount else inf for name, amount in asked.items()))


def _named(resources: Mapping[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"


@contextlib.contextmanager
def marked(folder: Path) -> Iterator[Path]:
    """A hidden folder in it, held by this process: who sees it held, shares the folder and its locks."""
    mark = folder.resolve() / f".driver-{uuid.uuid4().hex[:8]}"
    try:
        with locked(mark, "another process holds it"):
            yield mark
    finally:
        shutil.rmtree(mark, ignore_errors=True)


def refuse_unfit_machines(shop: Workshop, marks: tuple[Path, ...]) -> None:
    """Raises StudyError for a machine of the cluster that does not see the folders, or has other versions of what makes the numbers."""
    ray = ray_module()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=1, runtime_env=task_environment())(look_around)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    there = [look.options(scheduling_strategy=place).remote(marks) for place in places]
    here = software()
    for node, found in zip(nodes, there, strict=True):
        name = node["NodeManagerHostname"]
        try:
            reason, versions, processor = ray.get(found, timeout=LOOK_AROUND_S)
        except ray.exceptions.RayError as error:
            raise StudyError(f"{name} of the Ray cluster cannot run crossdistill: {last_words(error)}") from error
        if reason:
            raise StudyError(f"{name} of the Ray cluster cannot take part in this study: {reason}")
        if other := [f"{package} {versions[package]}, not {here[package]}" for package in here if versions[package] != here[package]]:
            raise StudyError(f"{name} of the Ray cluster has {'; '.join(other)}: numbers would depend on where a training ran")
        if processor != (ours := hardware(torch.device("cpu"))["processor"]):
            shop.progress.line(f"{name} has another processor ({processor}) than this machine ({ours}): last digits may depend on where")


def task_environment() -> dict[str, dict[str, str]]:
    """The environment variables that a task must share with the driver."""
    own = {name: value for name, value in os.environ.items() if name.startswith("CROSSDISTILL_") or name == "PYTHONPATH"}
    return {"env_vars": {**own, "CROSSDISTILL_CACHE": str(cache_folder().resolve())}}


def last_words(error: BaseException) -> str:
    """The last line of an error's text: in Ray's, which quote where they came from, the one that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
