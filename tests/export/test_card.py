import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from crossdistill.compare.tables import write_table
from crossdistill.core.records import InheritanceRow, ResultRow
from crossdistill.export import export_student
from crossdistill.export.card import card_text, hub_card
from crossdistill.export.licences import licences
from crossdistill.export.markdown import code_block, escaped
from crossdistill.export.student import find_student
from crossdistill.export.written import Written

from .conftest import make_run, make_study, small_student

HOSTILE = "</td><script>alert(1)</script>|**x**[link](http://a.b) www.a.b\n# head \u202e`code`"


def inheritance_row(**known) -> InheritanceRow:
    facts = dict(
        pair=0, teacher="vit", student="cnn", method="kd", contrast="independent", probe="scramble", metric="accuracy", level_or_auc="auc",
        role="primary", difference=0.071, low=0.031, high=0.111, p_raw=0.004, p_holm=0.0123, p_source="Welch", family_size=2,
        minimum_detectable=0.03, runs_needed=4, teacher_gap=0.2, gap_low=0.1, gap_high=0.3, fidelity=0.05, n_runs=5, n_teachers=5,
        verdict="inherited", reason="a reason", signal_gate="passed",
    )  # fmt: skip
    return InheritanceRow(**(facts | known))


def result_row(**known) -> ResultRow:
    facts = dict(
        run="kd-1", arm="kd", method="kd", teacher="vit", student="cnn", seed=0, probe="clean", level="", metric="accuracy", value=0.812,
        low=0.79, high=0.83, n=1000, unit="share", status="ok", reason=None, chance=1 / 3,
    )  # fmt: skip
    return ResultRow(**(facts | known))


def card_of(study: Path, run: str = "kd-1", **known) -> str:
    """The card of a run, without what is exported beside it."""
    student = find_student(make_run(study, run, small_student(), **known), study.parent)
    written = Written("timm", "logits = model(prepare(images))", lambda images: images, ("timm",))
    return hub_card(student, written, card_text(student, written, {"1": 1e-7}, None))


def table_under(card: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading, heads first."""
    below = card.split(heading, 1)[1].split("\n## ", 1)[0]
    rows = [line for line in below.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in rows if not line.startswith("|---")]


def test_the_inheritance_table_carries_every_number_of_a_contrast(tmp_path):
    make_study(tmp_path / "study")
    write_table([inheritance_row()], tmp_path / "study" / "inheritance.parquet")
    heads, row = table_under(card_of(tmp_path / "study"), "## What the method passed on")
    assert dict(zip(heads, row, strict=True)) == {
        "Against": "Independent",
        "Measured": "scramble accuracy, declared in advance",
        "Difference": "+7.1 (+3.1 to +11.1)",
        "p": "0.012 (Holm)",
        "Verdict": "Inherited",
        "Signal gate": "passed",
        "Why": "[1]",
    }


def test_what_is_not_measurable_says_why_and_shows_no_number(tmp_path):
    make_study(tmp_path / "study")
    reason = "too little signal: the ceiling is low"
    write_table(
        [inheritance_row(verdict="not_measurable", reason=reason, signal_gate="failed")], tmp_path / "study" / "inheritance.parquet"
    )
    card = card_of(tmp_path / "study")
    _, row = table_under(card, "## What the method passed on")
    assert row[2:6] == ["not measurable", "none", "Not measurable", "failed"]
    assert not re.search(r"7\.1|0\.012|3\.1", " ".join(row))
    assert f"1. {reason}" in card


def test_no_verdict_of_inheritance_stands_over_fewer_than_five_runs(tmp_path):
    make_study(tmp_path / "study")
    write_table([inheritance_row(n_runs=3)], tmp_path / "study" / "inheritance.parquet")
    card = card_of(tmp_path / "study")
    assert table_under(card, "## What the method passed on")[1][4] == "Unresolved"
    assert "1 run an arm cannot give a verdict of inheritance, which needs 5" in card


def test_only_the_rows_of_its_own_method_and_pair_are_shown(tmp_path):
    make_study(tmp_path / "study")
    others = [
        inheritance_row(method="crd"),
        inheritance_row(teacher="other"),
        inheritance_row(student="vit"),
        inheritance_row(pair=1, probe="shift"),
    ]
    write_table(others, tmp_path / "study" / "inheritance.parquet")
    rows = table_under(card_of(tmp_path / "study"), "## What the method passed on")[1:]
    assert [row[1] for row in rows] == ["shift accuracy, declared in advance"]


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        (dict(arm="independent", method=None, teacher=None, teacher_run=None), "no method taught this network"),
        (dict(arm="kd+twin", control="twin"), "it is a control"),
        (dict(), "has not compared this method with its controls yet"),
    ],
    ids=["independent", "control", "not compared"],
)
def test_a_network_without_contrasts_says_why(known, sentence, tmp_path):
    make_study(tmp_path / "study")
    assert sentence in card_of(tmp_path / "study", **known)


def test_accuracy_has_its_interval_and_its_gates(tmp_path):
    make_study(tmp_path / "study")
    near_chance = result_row(run="teacher-1", arm="teacher", value=0.35, low=0.32, high=0.38)
    failed = result_row(
        probe="scramble", level="grid=2", value=None, low=None, high=None, status="not_measurable", reason="too hard", signal_gate="failed"
    )
    write_table([result_row(), near_chance, failed], tmp_path / "study" / "results.parquet")
    card = card_of(tmp_path / "study")
    rows = table_under(card, "## How well it does")[1:]
    assert [[cell.replace("\u00a0", " ") for cell in row] for row in rows] == [
        ["clean", "81.2 %", "79.0 % to 83.0 %", "1000", ""],
        ["scramble", "not measurable", "", "1000", "too hard"],
    ]
    assert "Accuracy gate of this network: passed." in card
    assert "Accuracy gate of its teacher: failed, clean accuracy 35.0 % on 1,000 images is not clearly above" in card
    assert "Signal gate failed: scramble grid=2." in card


def test_the_front_matter_is_what_the_hub_reads(tmp_path):
    make_study(tmp_path / "study")
    write_table([result_row()], tmp_path / "study" / "results.parquet")
    data = ModelCard(card_of(tmp_path / "study")).data
    assert data.license == "unknown"
    assert data.pipeline_tag == "image-classification"
    assert {"knowledge-distillation", "crossdistill"} <= set(data.tags or [])
    assert data.library_name == "timm"
    (result,) = data.eval_results or []
    assert (result.metric_type, result.metric_value, result.dataset_type) == ("accuracy", 0.812, "trifeature")


def test_hostile_names_stay_text(tmp_path):
    classes = (HOSTILE, "x" * 5000, "\u05d0\u05d1\u05d2")
    make_study(tmp_path / "study", name=HOSTILE, networks={"cnn": {"model": HOSTILE}, "vit": {"checkpoint": HOSTILE}})
    write_table([inheritance_row(reason=HOSTILE)], tmp_path / "study" / "inheritance.parquet")
    write_table([result_row(reason=HOSTILE)], tmp_path / "study" / "results.parquet")
    card = card_of(tmp_path / "study", label=HOSTILE, classes=classes, notes=[HOSTILE])
    assert ModelCard(card).data.license == "unknown"
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(card.split("---\n", 2)[2])
    inline = [child.type for token in tokens for child in token.children or ()]
    assert not {"html_inline", "link_open", "em_open", "image"} & set(inline)
    assert "html_block" not in [token.type for token in tokens]
    assert inline.count("strong_open") == 2, "those of the card itself: preprocessing and classes"
    assert [token.tag for token in tokens if token.type == "heading_open"].count("h1") == 1
    prose = "".join(token.content for token in tokens if token.type == "inline")
    assert "\u202e" not in prose
    assert "x" * 1000 not in prose
    assert not re.search(r"https?://|www\.", prose), "the Hub makes links of addresses"
    assert {len(row) for row in table_under(card, "## What the method passed on")} == {7}
    assert {len(row) for row in table_under(card, "## How well it does")} == {5}


def test_a_code_block_cannot_be_closed_from_inside():
    text = "a\n````\n# out"
    block = code_block(text, "yaml")
    assert block.splitlines()[0] == "`````yaml"
    assert escaped(block) == block


def test_a_card_says_how_a_network_came_about_that_nobody_taught(tmp_path):
    make_study(tmp_path / "study", networks={"vit": {"checkpoint": "a.safetensors"}, "cnn": {"model": "small/resnet8"}})
    untaught = dict(method=None, teacher=None, teacher_run=None)
    finished = card_of(tmp_path / "study", "teacher-1", arm="teacher", student="vit", **untaught)
    assert "taken as it was from a checkpoint file: how and on what it was trained is not recorded here" in finished
    ceiling = card_of(tmp_path / "study", "ceiling-1", arm="ceiling", label="ceiling of scramble: cnn, seed 0", **untaught)
    assert "a control and not a network to use: trained on a probe's own images (ceiling of scramble: cnn, seed 0)" in ceiling
    assert "trained without a teacher as teacher, run seed 0" in card_of(tmp_path / "study", "teacher-2", arm="teacher", **untaught)
    twin = card_of(tmp_path / "study", "twin-1", arm="deit+twin", **(untaught | dict(method="deit", control="twin")))
    assert "trained without a teacher as deit+twin" in twin
    assert "It is a control of the method (twin), not a student to use." in twin


def test_a_card_says_which_weights_were_kept(tmp_path):
    make_study(tmp_path / "study")
    assert "not those of the last step: averaged." in card_of(tmp_path / "study", evaluated_weights="averaged")
    assert "not those of the last step" not in card_of(tmp_path / "study", "kd-2")


def test_figures_that_the_study_knows_are_not_called_unmeasured_where_the_study_is_not_at_hand(tmp_path):
    make_study(tmp_path / "study")
    (tmp_path / "study" / "plan.json").unlink()
    card = card_of(tmp_path / "study")
    assert card.count("the file stands outside its study") == 2
    assert "Not measured: the network" not in card


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"model": "small/resnet8"}, "trained from scratch on these images"),
        ({"checkpoint": "a.safetensors"}, "begun from a checkpoint file, licence not recorded"),
        ({"model": "torchvision/resnet18", "pretrained": True}, "published torchvision/resnet18, licence not recorded"),
        ({"model": "timm/vit_base_patch16_224.augreg_in1k", "pretrained": True}, "licence apache-2.0, as timm records it"),
    ],
    ids=["scratch", "checkpoint", "torchvision", "timm"],
)
def test_licences_are_told_as_far_as_they_are_known(chosen, sentence, tmp_path):
    make_study(
        tmp_path / "study", images={"source": "folder", "path": "/home/somebody/photos"}, networks={"cnn": chosen, "vit": {"model": "m"}}
    )
    run = make_run(tmp_path / "study", "kd-1", small_student())
    told = licences(find_student(run, tmp_path))
    assert told[0] == "Images (source folder): licence not recorded; ask who gave you the images."
    assert sentence in told[1]


def test_folders_of_the_machine_are_not_published(tmp_path):
    make_study(tmp_path / "study", images={"source": "folder", "path": "/home/somebody/photos", "masks": ["C:\\Users\\somebody\\masks"]})
    run = make_run(tmp_path / "study", "kd-1", small_student())
    card = (export_student(run, "huggingface", tmp_path / "out", store=tmp_path, latency=False).folder / "README.md").read_text()
    assert "somebody" not in card
    assert "path: photos" in card
    assert str(tmp_path) not in card
