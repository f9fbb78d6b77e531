"""docs/training.md and the studies that it names: every setting is there, and every study file can be read."""

import re
from pathlib import Path

import pytest

from crossdistill.core.recipe import EXECUTION, TrainingConfig
from crossdistill.core.study_file import parse_study, read_study

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))


@pytest.mark.parametrize("setting", TrainingConfig.model_fields)
def test_every_setting_has_its_row(setting: str) -> None:
    assert re.search(rf"^\|[^|]*`{setting}`[^|]*\|", PAGE, flags=re.MULTILINE)


def test_what_changes_no_byte_stands_apart() -> None:
    apart = PAGE.split("## What changes a result")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", apart, flags=re.MULTILINE)) == EXECUTION


def test_the_study_file_on_the_page_is_one() -> None:
    study = parse_study(PAGE.split("```yaml\n")[1].split("```")[0])
    assert (study.recipe("vit", teacher=True).epochs, study.recipe("vit").label_smoothing, study.recipe("cnn").ema) == (60, 0.1, 0.999)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_file_of_the_repository_can_be_read(path: Path) -> None:
    assert read_study(path).pairs


def test_the_patient_study_is_the_one_on_the_page() -> None:
    lines = PAGE.split("```yaml\n")[2].split("```")[0].splitlines()
    assert set(lines) <= set((ROOT / "studies" / "patient.yaml").read_text(encoding="utf-8").splitlines())
