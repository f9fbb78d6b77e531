"""What a record says about software and hardware."""

import os
import platform
from importlib.metadata import version

import torch

from crossdistill.core.errors import SettingError
from crossdistill.train.precision import settle_kernels

PACKAGES = ("crossdistill", "torch", "torchvision", "timm", "numpy", "scipy", "scikit-image", "pillow")


def software() -> dict[str, str]:
    """Versions of Python and of every package that can change a number."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def hardware(device: torch.device) -> dict[str, str]:
    """Machine type, processor, cores and device, and the vector instructions that torch uses: with others the last bits differ."""
    facts = {"machine": platform.machine(), "processor": _processor(), "cores": str(os.cpu_count()), "device": device.type}
    facts["vector_instructions"] = torch.backends.cpu.get_cpu_capability()
    if device.type == "cuda":
        facts["device_name"] = torch.cuda.get_device_name(device)
    return facts


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.processor())
    except OSError:
        return platform.processor()


def chosen_device(name: str) -> torch.device:
    """The device of that name, its kernels settled; "auto" takes a CUDA device where there is one.

    Raises SettingError where it cannot be had.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else _usable(name)
    settle_kernels(device)
    return device


def _usable(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(f"device '{name}' cannot be used here ({str(error).splitlines()[0]}): try --device cpu") from error
    return device
