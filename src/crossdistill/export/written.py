"""What every export has in common: what was written, how anybody loads it, and how images are prepared for it."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from crossdistill.export.program import Answers
from crossdistill.export.student import Student

WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Written:
    """What was written, how anybody loads it, and its answers when loaded so, for comparison with the network's."""

    library: str  # "timm", "torchvision", "transformers", "pytorch" or "onnxruntime"
    code: str  # Python that makes `logits` of `images`, uint8 [batch, 3, height, width]
    answers: Answers
    packages: tuple[str, ...]  # what the code needs


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's weights and buffers, each on the CPU and in memory of its own, as safetensors asks."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}


def statistics(student: Student) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the normalisation, on the scale of 0 to 1, without the noise of float32."""
    mean, std = ([round(value, 7) for value in values.flatten().tolist()] for values in (student.network.mean, student.network.std))
    return mean, std


def prepare_code(student: Student) -> str:
    """Python that makes `prepare`, which takes uint8 images of any size to what the bare model wants."""
    mean, std = statistics(student)
    steps = ["v2.ToDtype(torch.float32, scale=True)", f"v2.Resize({student.network.input_size})", f"v2.Normalize({mean}, {std})"]
    return "\n".join(["prepare = v2.Compose([", *(f"    {step}," for step in steps), "])"])


def prepared(student: Student) -> Answers:
    """The documented preparation, given images that are floats already."""
    from torchvision.transforms import v2

    mean, std = statistics(student)
    return v2.Compose([v2.Resize(student.network.input_size), v2.Normalize(mean, std)])


def preprocessing(student: Student) -> dict[str, Any]:
    """The same for machines: what stands in config.json."""
    mean, std = statistics(student)
    return {
        "input_range": [0, 1], "input_size": [3, *student.network.input_size], "mean": mean, "std": std,
        "interpolation": "bilinear", "antialias": True, "crop": None,
    }  # fmt: skip
