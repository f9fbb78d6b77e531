"""What the page says of probes: signal gates that failed or were not run, controls, dropped images, tiles that are whole patches."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from crossdistill.compare import read_table, write_table
from crossdistill.compare.gates import TOO_LITTLE_SIGNAL
from crossdistill.core.records import InheritanceRow, ResultRow, RunRecord
from crossdistill.report.contrast_tables import contrast_table
from crossdistill.report.headline import headline_rows
from crossdistill.report.matrix import inheritance_matrix
from crossdistill.report.names import quantity
from crossdistill.report.page import build_page, render
from crossdistill.report.sections import curves
from crossdistill.report.sections.figures import figure_tables
from crossdistill.report.sentences import verdict_sentences
from crossdistill.report.study_files import read_study
from crossdistill.report.tables import metric_table

REASON = f"{TOO_LITTLE_SIGNAL}: at most 24.0 % was reached (ceiling: superpixel: cnn, seed 0, trained on such images)"
FAILED = ("superpixel", "n_segments=16")


@pytest.fixture
def folder(study_folder: Path, tmp_path: Path) -> Path:
    """A finished study in which the coarsest superpixels carry too little signal and nobody gated the scramble."""
    folder = Path(shutil.copytree(study_folder, tmp_path / "study"))

    def result(row: ResultRow) -> ResultRow:
        if (row.probe, row.level) != FAILED:
            return row.model_copy(update={"signal_gate": "not run"}) if row.probe == "scramble" else row
        lost = {"value": None, "low": None, "high": None, "status": "not_measurable", "reason": REASON}
        return row.model_copy(update={"signal_gate": "failed"} | (lost if row.metric in ("retention", "seed_ratio") else {}))

    def contrast(row: InheritanceRow) -> InheritanceRow:
        if (row.probe, row.level_or_auc) != FAILED:
            return row.model_copy(update={"signal_gate": "not run"}) if row.probe == "scramble" else row
        lost = dict.fromkeys(("difference", "low", "high", "teacher_gap"), None)
        return row.model_copy(update={**lost, "verdict": "not_measurable", "reason": REASON, "signal_gate": "failed"})

    for name, row_type, change in (("results", ResultRow, result), ("inheritance", InheritanceRow, contrast)):
        path = folder / f"{name}.parquet"
        write_table([change(row) for row in read_table(path, row_type)], path)  # type: ignore[arg-type, type-var]
    return folder


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def words(folder: Path) -> str:
    page = re.sub(r"<style>.*?</style>|<script>.*?</script>", "", render(read_study(folder)), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("\u00a0", " ")


def test_a_level_whose_gate_failed_is_grey_with_its_reason_in_text_and_on_hover(folder: Path) -> None:
    table = metric_table(read_study(folder), "Accuracy", ["accuracy"])
    assert table is not None
    (failed,) = [cells for cells in table.rows if "signal gate failed" in cells[0].small]
    assert (failed[0].text, failed[0].small) == ("superpixel", "n_segments=16, signal gate failed")
    assert {cell.mark for cell in failed} == {"muted"}
    assert failed[0].footnote
    assert table.footnotes[failed[0].footnote - 1] == REASON
    assert all(cell.text.endswith("%") for cell in failed[1:])  # accuracy itself was measured
    page = render(read_study(folder))
    assert f'data-tip="{REASON}"' in page
    assert f"<li>{REASON}</li>" in page


def test_its_retention_and_its_contrasts_are_not_measurable(folder: Path) -> None:
    study = read_study(folder)
    table = metric_table(study, "Retention", ["retention"])
    assert table is not None
    (failed,) = [cells for cells in table.rows if "signal gate failed" in cells[0].small]
    assert {cell.text for cell in failed[1:]} == {"not measurable"}
    lost = [row for row in study.inheritance if (row.probe, row.level_or_auc) == FAILED and row.metric == "accuracy"]
    (sentence,) = verdict_sentences(lost[:1])
    assert sentence.title == "Not measurable"
    assert sentence.text.startswith("Too little signal: at most 24.0 % was reached")


def test_a_gate_that_was_not_run_is_named_in_tables_and_sentences(folder: Path) -> None:
    study = read_study(folder)
    table = metric_table(study, "Accuracy", ["accuracy"])
    assert table is not None
    assert {cells[0].small for cells in table.rows if cells[0].text == "scramble"} == {
        "grid=2, gate not run", "grid=4, gate not run", "all levels, gate not run"
    }  # fmt: skip
    (row,) = [r for r in study.inheritance if (r.pair, r.probe, r.metric, r.level_or_auc) == (0, "scramble", "accuracy", "auc")]
    assert quantity(row) == "scramble accuracy"
    assert "On scramble no network shows that the images can be read at all (gate not run)." in words(folder)
    assert words(folder).count("Scramble accuracy gate not run") == len(study.pairs)  # once for each row of the charts
    small = {(cells[3].text, "gate not run" in cells[3].small) for cells in contrast_table(study.inheritance).rows}
    assert ("scramble accuracy", True) in small
    assert ("superpixel accuracy", True) not in small


def test_the_section_on_probes_tells_what_became_of_each_gate(folder: Path) -> None:
    text = words(folder)
    assert "Signal gate passed at n_segments=64 and n_segments=36." in text
    assert f"Signal gate failed at n_segments=16. At n_segments=16: {REASON}." in text
    assert "Gate not run at grid=2 and grid=4." in text


def test_tables_from_before_there_was_a_gate_load_and_say_that_it_was_not_run(study_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(study_folder, tmp_path / "old"))
    for name in ("results", "inheritance"):
        path, aside = folder / f"{name}.parquet", tmp_path / "aside.parquet"
        with duckdb.connect() as database:
            database.sql(f"SELECT * EXCLUDE signal_gate FROM '{path}'").write_parquet(str(aside))
        aside.rename(path)
    study = read_study(folder)
    assert {row.signal_gate for row in study.results if row.probe in ("clean", "conflict")} == {""}
    assert {row.signal_gate for row in (*study.results, *study.inheritance) if row.probe == "superpixel"} == {"not run"}
    assert "Scramble accuracy gate not run" in words(folder)


def test_a_record_from_before_patch_grids_loads(folder: Path) -> None:
    path = next(folder.glob("runs/*/record.json"))
    record = json.loads(path.read_text())
    del record["patch_grid"]
    path.write_text(json.dumps(record))
    assert RunRecord.load(path.parent).patch_grid is None


def test_a_control_follows_the_probe_that_it_controls(folder: Path) -> None:
    edit(folder / "plan.json", probes={"localized_noise": {"control_of": "superpixel"}})  # which it is not
    study = read_study(folder)
    assert [probe.name for probe in study.probes] == ["scramble", "superpixel", "localized_noise"]
    table = metric_table(study, "Accuracy", ["accuracy"])
    assert table is not None
    assert list(dict.fromkeys(cells[0].text for cells in table.rows)) == ["clean", "scramble", "superpixel", "localized noise", "conflict"]
    assert "fraction=0.2, control of superpixel" in {cells[0].small for cells in table.rows}
    assert "It is a control of superpixel" in words(folder)


def test_images_that_a_probe_dropped_are_counted(folder: Path) -> None:
    edit(folder / "probes" / "scramble-0123abcd" / "manifest.json", n_images=300, n_kept=240)
    edit(folder / "probes" / "superpixel-0123abcd" / "manifest.json", n_images=300, n_kept=300)
    text = words(folder)
    assert "60 images of 300 could not be treated and were left out; 80.0 % remain" in text
    assert text.count("could not be treated") == 1


def test_tiles_that_are_whole_patches_are_marked_for_the_network_whose_patches_they_are(folder: Path) -> None:
    tiles = {"grid=2": {"tile": [16, 16], "size": [32, 32]}, "grid=4": {"tile": [8, 8], "size": [32, 32]}}
    edit(folder / "plan.json", probes={"scramble": {"control_of": None, "tiles": tiles}})
    for path in folder.glob("runs/*/record.json"):
        if json.loads(path.read_text())["student"] == "vit":
            edit(path, patch_grid=[2, 2])  # patches of 16 pixels
    study = read_study(folder)
    assert study.token_aligned == {("vit", "scramble", "grid=2")}
    table = metric_table(study, "Accuracy", ["accuracy"])
    assert table is not None
    heads = [column.name for column in table.columns]
    marked = {(cells[0].small, heads[place]) for cells in table.rows for place, cell in enumerate(cells) if "token-aligned" in cell.small}
    assert marked == {("grid=2, gate not run", name) for name in ("teacher vit", "independent vit", "kd")}
    text = words(folder)
    assert "Token-aligned for vit at grid=2: tiles are whole patches of it, which favours it by construction." in text
    assert "Token-aligned: the probe's tiles are whole patches of this network" in text.replace("&#39;", "'")


def test_ceilings_are_counted_apart_from_students_and_missing_ones_are_not_missed(folder: Path) -> None:
    path = next(folder.glob("runs/independent-cnn-0/record.json"))
    ceiling = RunRecord.load(path.parent).model_copy(
        update={"arm": "ceiling", "run": "ceiling-abc", "label": "ceiling: superpixel: cnn, seed 0"}
    )
    ceiling.save(folder / "runs" / "ceiling-abc")
    planned = [{"key": k, "kind": "ceiling", "label": f"ceiling {k}", "run": f"ceiling-{k}", "probe": "superpixel"} for k in ("abc", "def")]
    edit(folder / "plan.json", ceilings=planned)
    study = read_study(folder)
    assert "ceiling-abc" in {record.run for record in study.records}
    assert study.missing == ()
    assert "8 students trained, 1 network trained on probes for their signal gate" in words(folder)
    build_page(folder)


def changed(folder: Path, change: Callable[[ResultRow], list[ResultRow]]) -> None:
    path = folder / "results.parquet"
    write_table([new for row in read_table(path, ResultRow) for new in change(row)], path)


def test_a_probe_that_dropped_images_is_read_beside_the_clean_accuracy_on_the_others(folder: Path) -> None:
    def dropping(row: ResultRow) -> list[ResultRow]:
        if row.probe != "superpixel":
            return [row]
        row = row.model_copy(update={"chance": 0.45})
        clean = row.model_copy(update={"metric": "clean_accuracy", "value": 0.777})
        return [row, clean] if row.metric == "accuracy" else [row]

    changed(folder, dropping)
    study = read_study(folder)
    table = metric_table(study, "Accuracy", ["accuracy"])
    assert table is not None
    heads = [(cells[0].text, cells[0].small) for cells in table.rows]
    place = heads.index(("superpixel", "the same images, clean"))
    assert heads[place + 1][1].startswith("n_segments=64")
    assert {cell.text.replace("\u00a0", " ") for cell in table.rows[place][1:] if cell.text != "not observed"} == {"77.7 %"}
    assert len([head for head in heads if head[1] == "the same images, clean"]) == 1
    near = {cells[0].text for cells in table.rows for cell in cells[1:] if "near chance" in cell.small}
    assert "superpixel" in near  # 45 %, the share of its largest class, where a fifth is right by chance on the other sets

    drawn: list[Any] = []
    original = curves._chart
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "_chart", lambda data, *rest: drawn.append((data, rest[-1])) or original(data, *rest))
        for probe in ("superpixel", "scramble"):
            curves.accuracy_curves(study, study.pairs[0], probe)
    (cut, chance), (whole, usual) = drawn
    assert [point["accuracy"] for point in cut if point["place"] == 0] == [pytest.approx(77.7)] * 3
    assert 77.7 not in {point["accuracy"] for point in whole}
    assert (chance, usual) == (0.45, 0.2)
    assert "chance on these images: 45.0 %" in words(folder)


def test_choices_on_a_probe_that_puts_a_cue_there_reach_table_headline_and_chart(folder: Path) -> None:
    def choosing(row: ResultRow) -> list[ResultRow]:
        bias = row.model_copy(update={"metric": "shape_bias", "value": 0.25})
        return [row, bias] if row.metric == "accuracy" and row.probe in ("clean", "scramble", "superpixel") else [row]

    changed(folder, choosing)
    (manifest,) = folder.glob("probes/scramble-*/manifest.json")
    levels = [{**level, "factors": {"texture": None}} for level in json.loads(manifest.read_text())["levels"]]
    edit(manifest, levels=levels)
    study = read_study(folder)
    assert study.choice_sets == ("scramble", "conflict")
    (choices,) = [item.table for item in figure_tables(study) if item.heading == "Choices between cues"]
    assert {cells[0].small.split(",")[0] for cells in choices.rows if cells[0].text == "shape bias"} == {"scramble", "conflict"}
    accuracy = next(row for row in study.inheritance if (row.probe, row.level_or_auc, row.metric) == ("scramble", "auc", "accuracy"))
    bias = accuracy.model_copy(update={"metric": "shape_bias", "role": "secondary"})
    shown = headline_rows([*study.inheritance, bias], study.choice_sets)
    assert bias in shown
    assert accuracy in shown
    (line,) = inheritance_matrix(study, study.pairs[0], [bias.model_copy(update={"signal_gate": "not run"})], 10).rows
    assert (line.name, line.remark) == ("Shape bias (scramble)", "gate not run")


def test_where_the_clean_images_hold_no_cues_every_set_with_choices_counts(folder: Path) -> None:
    changed(folder, lambda row: [row, row.model_copy(update={"metric": "shape_bias"})] if row.probe == "superpixel" else [row])
    assert read_study(folder).choice_sets == ("superpixel", "conflict")


def test_why_no_network_could_be_trained_for_a_gate_stands_with_the_probe(folder: Path) -> None:
    edit(folder / "plan.json", no_ceilings={"scramble": "no masks for the training images", "superpixel": "no masks either"})
    assert "Gate not run: no masks for the training images." in words(folder)
    assert "no masks either" not in words(folder)  # its gate was decided without one
