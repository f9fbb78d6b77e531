"""One teacher, one student, one method, without a study file: the study that `crossdistill distill` runs."""

import json

from crossdistill.core.config import StudyConfig
from crossdistill.core.study_file import parse_study
from crossdistill.images._splits import parse_source


def single_study(
    teacher: str, student: str, images: str, *, method: str, epochs: int, seeds: int, pretrained: bool = False, name: str = "distill"
) -> StudyConfig:
    """The study of one pair with every default. A teacher that ends in .safetensors is a finished checkpoint.

    Raises SettingError for what a study file would be refused for.
    """
    source, settings = parse_source(images)
    taught_by = {"checkpoint": teacher} if teacher.endswith(".safetensors") else {"model": teacher, "pretrained": pretrained}
    study = {
        "name": name,
        "images": {"source": source, **settings},
        "networks": {"teacher": taught_by, "student": {"model": student}},
        "pairs": [{"teacher": "teacher", "student": "student", "methods": [method]}],
        "seeds": list(range(seeds)),
        "training": {"epochs": epochs},
    }
    return parse_study(json.dumps(study), source="the command line")  # JSON is YAML: one set of checks for both
