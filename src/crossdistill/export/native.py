"""A student in the form of the library that it comes from, or as a program of plain torch."""

from collections.abc import Callable
from pathlib import Path

import torch

from crossdistill.core.store import write_json
from crossdistill.export.libraries import write_timm, write_torchvision, write_transformers
from crossdistill.export.program import exported_program
from crossdistill.export.student import Student
from crossdistill.export.written import CONFIG, WEIGHTS, Written, preprocessing
from crossdistill.models._build import save_network
from crossdistill.ops.taps import Reader

PROGRAM = "student.pt2"


def write_native(student: Student, folder: Path) -> Written:
    """Write a student for its own library, or as a program of plain torch where heads, tokens or code are not that library's own."""
    source = student.network.model_name.partition("/")[0]
    writers: dict[str, Callable[[Student, Path], Written]] = {
        "timm": write_timm,
        "torchvision": write_torchvision,
        "huggingface": write_transformers,
    }
    write = writers.get(source, _write_program) if _is_bare(student) else _write_program
    return write(student, folder)


def _is_bare(student: Student) -> bool:
    """Whether the model alone, called after normalisation, makes the network's prediction."""
    network = student.network
    reader: Reader = network.reader
    own_heads = len(reader.classifiers(network.model))
    return not network.extra_heads and network.readout == ("mean_heads" if own_heads > 1 else "class")


def _write_program(student: Student, folder: Path) -> Written:
    extra = {"run": student.run} | ({} if student.record is None else {"label": student.label})
    save_network(student.network, folder / WEIGHTS, class_names=student.class_names, extra=extra)
    torch.export.save(exported_program(student.network, student.size), folder / PROGRAM)
    write_json(folder / CONFIG, {
        "library": "torch.export", "program": PROGRAM, "num_classes": student.network.n_classes, "label_names": list(student.class_names),
        "input": ["batch", 3, *student.size], "preprocessing": "inside the program: give images as floats of 0 to 1",
        "inside": preprocessing(student), "readout": student.network.readout,
    })  # fmt: skip
    loaded = torch.export.load(folder / PROGRAM).module()
    code = f"""import torch

model = torch.export.load("FOLDER/{PROGRAM}").module()
logits = model(images / 255)  # resize and normalisation are inside; images of {student.size[0]} x {student.size[1]} px
"""
    return Written("pytorch", code, loaded, ("torch",))
