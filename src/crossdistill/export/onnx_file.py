"""A student as ONNX: preprocessing inside the graph, any batch size, compared with torch in onnxruntime."""

from pathlib import Path

import torch

from crossdistill.core.errors import CrossdistillError
from crossdistill.export.program import Answers, exported_program, exporting, quiet
from crossdistill.export.student import Student
from crossdistill.export.written import Written

FILE = "student.onnx"


def write_onnx(student: Student, folder: Path) -> Written:
    """Write the student as ONNX. Raises CrossdistillError where the extra is not installed."""
    check_installed()
    program = exported_program(student.network, student.size)
    with quiet(), torch.no_grad(), exporting(f"{student.network.model_name} cannot be written as ONNX"):
        made = torch.onnx.export(
            program, dynamo=True, dynamic_shapes=({0: "batch"},), input_names=["images"], output_names=["logits"], verbose=False
        )
        assert made is not None, "the dynamo exporter gives a program"
        made.save(str(folder / FILE))
    height, width = student.size
    code = f"""import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("FOLDER/{FILE}", providers=["CPUExecutionProvider"])
logits = session.run(["logits"], {{"images": images.astype(np.float32) / 255}})[0]  # uint8 arrays of {height} x {width} px
"""
    return Written("onnxruntime", code, onnx_answers(folder / FILE), ("onnxruntime", "numpy"))


def onnx_answers(path: Path) -> Answers:
    """The file's logits by onnxruntime on the CPU, with as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def check_installed() -> None:
    """Raise CrossdistillError unless the extra is there."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise CrossdistillError(f"ONNX needs {error.name}, which is not installed: pip install 'crossdistill[onnx]'") from error
