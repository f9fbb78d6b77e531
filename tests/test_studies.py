"""The study files that come with the project are read as they stand."""

from pathlib import Path

import pytest

from crossdistill.core.study_file import read_study

STUDIES = Path(__file__).parent.parent / "studies"
FILES = [path for path in sorted(STUDIES.rglob("*.yaml")) if path.name != "study.yaml"]  # those are of results


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(STUDIES)))
def test_a_study_that_comes_with_the_project_is_one(path: Path) -> None:
    config = read_study(path)
    assert all(pair.methods for pair in config.pairs)
    assert sum(config.name == read_study(other).name for other in FILES) == 1, "two would be refused in one folder, and not told apart"
