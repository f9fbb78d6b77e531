"""Which table a figure stands in, what it is called, and in which unit."""

import shutil
from pathlib import Path

import pytest

from crossdistill.compare import read_table, write_table
from crossdistill.core.records import ResultRow, RunRecord
from crossdistill.report.names import metric_words
from crossdistill.report.page import _facts
from crossdistill.report.sections.cost import cost_table
from crossdistill.report.sections.figures import FigureTable, figure_tables
from crossdistill.report.study_files import read_study

FIGURES = {  # (unit, value): (table, name, what stands there)
    "agreement_kappa": (("kappa", 0.5), ("Invariance", "answers unchanged (kappa)", "0.500")),
    "js_invariance": (("share", 0.5), ("Invariance", "probabilities unchanged (Jensen-Shannon)", "50.0 %")),
    "calibration_ece": (("probability", 0.05), ("Calibration", "expected calibration error", "5.0 %")),
    "calibration_brier": (("score", 0.25), ("Calibration", "Brier score", "0.250")),
    "calibration_nll": (("nats", 0.25), ("Calibration", "negative log likelihood", "0.250 nats")),
    "accuracy_residual_share": (
        ("share", 0.021), ("Accuracy beyond clean accuracy", "accuracy beyond what clean accuracy foretells", "+2.1 points")
    ),
    "error_consistency": (("kappa", 0.3), ("Errors shared with the teacher", "error consistency (kappa)", "0.300")),
    "side_with_teacher_excess": (
        ("difference", -0.02),
        ("Errors shared with the teacher", "siding with the teacher, beyond a second independent student", "\u22122.0 points"),
    ),
    "effective_receptive_field_side_50": (
        ("share of the side", 0.4), ("Receptive field", "side of the square that holds 50 % of the gradient", "40.0 %")
    ),
    "mean_attention_distance_layer2": (
        ("share of uniform", 0.8), ("Attention distance by layer", "attention distance of layer 2", "0.800")
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(study_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study with one value of every new figure beside each clean accuracy, and of a head of a layer."""
    folder = Path(shutil.copytree(study_folder, tmp_path_factory.mktemp("figures") / "study"))
    path = folder / "results.parquet"
    others = set(FIGURES) | {"agreement", "retention"}
    rows = [row for row in read_table(path, ResultRow) if row.metric not in others and not row.metric.startswith("mean_attention")]
    clean = [row for row in rows if (row.probe, row.metric) == ("clean", "accuracy")]
    for metric, ((unit, value), _) in [*FIGURES.items(), ("mean_attention_distance_layer2_head1", (("share of uniform", 0.123), None))]:
        rows += [row.model_copy(update={"metric": metric, "unit": unit, "value": value, "low": None, "high": None}) for row in clean]
    write_table(rows, path)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, FigureTable]:
    return {item.heading: item for item in figure_tables(read_study(folder))}


@pytest.mark.parametrize("metric", FIGURES)
def test_a_figure_has_its_table_its_name_and_its_unit(metric: str, found: dict[str, FigureTable]) -> None:
    _, (heading, name, text) = FIGURES[metric]
    assert metric_words(metric) == name
    rows = found[heading].table.rows
    several = len({metric for metric, (_, place) in FIGURES.items() if place[0] == heading}) > 1
    shown = [cells for cells in rows if cells[0].text == name] if several else rows
    assert {cell.text.replace("\u00a0", " ") for cells in shown for cell in cells[1:]} == {text}


def test_the_page_begins_with_accuracy_and_leaves_heads_to_the_file(found: dict[str, FigureTable]) -> None:
    headings = list(found)
    assert headings[0] == "Accuracy"
    assert headings.index("Accuracy beyond clean accuracy") < headings.index("Invariance") < headings.index("Calibration")
    assert not any("head" in cells[0].text for cells in found["Attention distance by layer"].table.rows)


def test_of_the_new_figures_a_probe_with_levels_shows_its_mean(study_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(study_folder, tmp_path / "study"))
    rows = [row for row in read_table(folder / "results.parquet", ResultRow) if row.metric == "accuracy"]
    kappa = [row.model_copy(update={"metric": "agreement_kappa", "unit": "kappa"}) for row in rows if row.probe == "scramble"]
    write_table([*rows, *kappa], folder / "results.parquet")
    tables = {item.heading: item for item in figure_tables(read_study(folder))}
    assert [cells[0].small.split(",")[0] for cells in tables["Invariance"].table.rows] == ["all levels"]
    assert tables["Invariance"].note.endswith("Of probes with several levels the mean over them.")
    assert len([cells for cells in tables["Accuracy"].table.rows if cells[0].text == "scramble"]) == 3


def test_earlier_weights_of_a_teacher_are_neither_students_nor_a_cost(study_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(study_folder, tmp_path / "study"))
    (folder / "plan.json").write_text("{}")
    before = _facts(read_study(folder))
    teacher = RunRecord.load(folder / "runs" / "teacher-vit-0")
    earlier = teacher.model_copy(update={"run": "teacher-vit-0@epoch-003", "arm": "earlier_teacher"})
    earlier.save(folder / "runs" / earlier.run)
    study = read_study(folder)
    assert earlier.run in {record.run for record in study.records}
    assert "2 teachers and 8 students trained" in before
    assert "2 teachers and 8 students trained" in _facts(study)
    assert "earlier_teacher" not in {cells[1].text for cells in cost_table(study.records).rows}
