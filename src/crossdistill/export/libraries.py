"""Weights and configuration as timm, torchvision and transformers keep them, so that two lines of each load a student."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from crossdistill.core.store import write_json
from crossdistill.export.student import Student
from crossdistill.export.written import CONFIG, WEIGHTS, Written, prepare_code, prepared, preprocessing, statistics, tensors


def write_timm(student: Student, folder: Path) -> Written:
    import timm
    from timm.models import split_model_name_tag

    name = student.network.model_name.partition("/")[2]
    architecture, _ = split_model_name_tag(name)
    options = dict(student.network.settings.get("options") or {})
    model: Any = student.network.model
    published = dict(model.pretrained_cfg)
    mean, std = statistics(student)
    # "squash": both sides to the input size whatever the image's shape, as the network resizes; timm's own default cuts a border off.
    shown = {
        "input_size": [3, *student.network.input_size], "mean": mean, "std": std, "interpolation": "bilinear", "crop_pct": 1.0,
        "crop_mode": "squash", "fixed_input_size": published.get("fixed_input_size", False), "num_classes": student.network.n_classes,
        "first_conv": published.get("first_conv"), "classifier": published.get("classifier"), "custom_load": False,
    }  # fmt: skip
    config = {
        "architecture": architecture, "num_classes": student.network.n_classes, "num_features": model.num_features,
        "label_names": list(student.class_names), "model_args": {**options, **_image_size(architecture, student, options)},
        "pretrained_cfg": shown, "crossdistill": {"preprocessing": preprocessing(student)},
    }  # fmt: skip
    save_file(tensors(model), folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / CONFIG, config)
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    prepare = prepared(student)
    code = f"""import timm, torch
from torchvision.transforms import v2

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
{prepare_code(student)}
logits = model(prepare(images))
"""
    return Written("timm", code, lambda images: loaded(prepare(images)), ("timm", "torchvision"))


def _image_size(architecture: str, student: Student, options: dict[str, Any]) -> dict[str, list[int]]:
    """The argument that tells timm's transformers their image size; nothing for models that take any, which refuse it."""
    import timm

    size = list(student.network.input_size)
    try:
        with torch.device("meta"):
            timm.create_model(architecture, img_size=tuple(size), num_classes=student.network.n_classes, **options)
    except TypeError:
        return {}
    return {"img_size": size}


def write_torchvision(student: Student, folder: Path) -> Written:
    from torchvision.models import get_model

    architecture = student.network.model_name.partition("/")[2].partition(".")[0]
    side = getattr(student.network.model, "image_size", None)
    options = student.network.settings.get("options") or {}
    arguments = {"num_classes": student.network.n_classes, **({"image_size": side} if isinstance(side, int) else {}), **options}
    save_file(tensors(student.network.model), folder / WEIGHTS, metadata={"format": "pt"})
    described = {"library": "torchvision", "architecture": architecture, "arguments": arguments}
    write_json(folder / CONFIG, {**described, "label_names": list(student.class_names), "preprocessing": preprocessing(student)})
    loaded = get_model(architecture, **json.loads(json.dumps(arguments))).eval()
    loaded.load_state_dict(load_file(folder / WEIGHTS))
    prepare = prepared(student)
    written = ", ".join([repr(architecture), *(f"{name}={value!r}" for name, value in arguments.items())])
    code = f"""import torch
from safetensors.torch import load_file
from torchvision.models import get_model
from torchvision.transforms import v2

model = get_model({written}).eval()
model.load_state_dict(load_file("FOLDER/{WEIGHTS}"))
{prepare_code(student)}
logits = model(prepare(images))
"""
    return Written("torchvision", code, lambda images: loaded(prepare(images)), ("torchvision", "safetensors"))


def write_transformers(student: Student, folder: Path) -> Written:
    from transformers import AutoModelForImageClassification
    from transformers.utils import logging

    model: Any = student.network.model
    model.config.id2label = dict(enumerate(student.class_names)) or model.config.id2label
    model.config.label2id = {name: label for label, name in model.config.id2label.items()}
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    mean, std = statistics(student)
    height, width = student.network.input_size
    write_json(folder / "preprocessor_config.json", {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": height, "width": width}, "resample": 2,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": mean, "image_std": std,
    })  # fmt: skip
    loaded = AutoModelForImageClassification.from_pretrained(folder).eval()
    prepare = prepared(student)
    code = f"""import torch
from torchvision.transforms import v2
from transformers import AutoModelForImageClassification

model = AutoModelForImageClassification.from_pretrained("FOLDER").eval()
{prepare_code(student)}
logits = model(prepare(images)).logits
"""
    return Written("transformers", code, lambda images: loaded(prepare(images)).logits, ("transformers", "torchvision"))
