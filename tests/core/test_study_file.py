"""The study file: what is refused, in which line, and with which nearest name."""

from pathlib import Path

import pytest

from crossdistill.core.errors import CrossdistillError, SettingError
from crossdistill.core.recipe import ViewsConfig
from crossdistill.core.study_file import parse_study, read_study

STUDY = """\
images: {source: trifeature}
networks:
  vit: {model: small/vit, width: 64}
  cnn: {model: small/resnet8, training: {learning_rate: 1e-2}}
pairs:
  - {teacher: vit, student: cnn, methods: [kd, {name: kd, label: cold, temperature: 1}]}
training:
  epochs: 3
  learning_rate: 1e-3
seeds: [3, 4]
"""


AGAINST = "primary: [{{pair: 0, method: {}}}]"


def refusal(text: str) -> str:
    with pytest.raises(CrossdistillError) as caught:
        parse_study(text, source="study.yaml")
    return str(caught.value)


def test_a_study_file_is_read_with_its_defaults() -> None:
    study = parse_study(STUDY, default_name="mine")
    assert study.name == "mine"
    assert study.training.learning_rate == 1e-3  # PyYAML alone reads `1e-3` as text
    assert study.recipe("cnn").learning_rate == 1e-2
    assert study.recipe("vit").epochs == 3
    assert study.networks["vit"].settings == {"width": 64}
    assert [method.arm for method in study.pairs[0].methods] == ["kd", "cold"]
    assert study.training.views == ViewsConfig(crops=8, flip=True)
    assert study.teacher_seeds("vit") == (3, 4)
    assert {(c.pair, c.method) for c in study.contrasts} == {(0, "kd")}
    assert {c.probe for c in study.contrasts} == set(study.probe_names)


def test_teachers_take_the_study_recipe_then_their_own_then_the_networks() -> None:
    study = parse_study(STUDY + "teachers: {runs: 1, epochs: 9, learning_rate: 5e-4}\n")
    assert (study.recipe("vit", teacher=True).epochs, study.recipe("vit", teacher=True).learning_rate) == (9, 5e-4)
    assert study.recipe("cnn", teacher=True).learning_rate == 1e-2
    assert study.teacher_seeds("vit") == (3,)
    assert study.teacher_seed_for("vit", 4) == 3


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epochs: 3", "epochs: many", "study.yaml, line 8: training.epochs: input should be a valid integer"),
        ("epochs: 3", "epochz: 3", "study.yaml, line 8: training.epochz: there is no setting 'epochz' here. Did you mean 'epochs'?"),
        ("learning_rate: 1e-3", "learning_rate: -1", "study.yaml, line 9: training.learning_rate: input should be greater than 0, got -1"),
        ("methods: [kd,", "methods: [kdd,", "study.yaml, line 6: pairs.0.methods.0: no method is called 'kdd'. Did you mean 'kd'?"),
        ("temperature: 1", "temperatur: 1", "method 'kd' has no setting 'temperatur'. Did you mean 'temperature'?"),
        ("temperature: 1", "temperature: hot", "setting 'temperature' of method 'kd': input should be a valid number"),
        ("label: cold, ", "", "two arms of this pair are called 'kd'"),
        (", temperature: 1", "", "'kd' and 'cold' are the same method with the same settings"),
        ("label: cold", "label: a/b", "string should match pattern"),
        ("temperature: 1", "temperature: -1", "setting 'temperature' of method 'kd': input should be greater than 0, got -1"),
        ("seeds: [3, 4]", "seeds: [3, 4]\nteachers: {epochz: 3}", "study.yaml, line 11: teachers: epochz: there is no setting 'epochz'"),
        ("seeds: [3, 4]", "seeds: [3, 4]\nprobes: [scramble, scramble]", "line 11: probes: probe 'scramble' stands here twice"),
        ("seeds: [3, 4]", "seeds: [3, 4]\nname: {{ x }}", "study.yaml, line 11: this is not YAML"),
        ("teacher: vit", "teacher: vti", "study.yaml, line 6: pairs.0.teacher: no network is called 'vti'. Did you mean 'vit'?"),
        ("source: trifeature", "source: trifeatures", "study.yaml, line 1: images.source: no images is called 'trifeatures'. Did you mean"),
        ("model: small/vit", "model: smal/vit", "study.yaml, line 3: networks.vit.model: no model is called 'smal'. Did you mean 'small'?"),
        ("seeds: [3, 4]", "seeds: [3, 3]", "study.yaml, line 10: seeds: seeds repeat"),
        ("seeds: [3, 4]", "seeds: [3, 4]\nprobes: [scrambled]", "line 11: probes.0: no probe is called 'scrambled'. Did you mean"),
        ("seeds: [3, 4]", "seeds: [3]\nprimary: [{pair: 0, method: kdx, probe: scramble}]", "pair 0 has no method 'kdx'. Did you mean"),
        ("seeds: [3, 4]", f"seeds: [3]\n{AGAINST.format('cold, probe: scramble, against: twin')}",
         "study.yaml, line 11: primary.0.against: the study has no arm 'twin'. Add it to `arms`, which has: independent"),
        ("seeds: [3, 4]", f"arms: [independent, twin]\n{AGAINST.format('cold, probe: scramble, against: twin')}",
         "study.yaml, line 11: primary.0.against: 'cold' has no twin: it changes neither the student nor its images"),
        ("seeds: [3, 4]", f"seeds: [3]\n{AGAINST.format('cold, probe: scramble, against: twins')}", "primary.0.against: input should be"),
        ("seeds: [3, 4]", f"arms: [second_independent]\n{AGAINST.format('cold, probe: scramble')}",
         "line 11: primary.0: the study has no arm 'independent'. Add it to `arms`, which has: second_independent"),
        ("seeds: [3, 4]", "seeds: [3]\nprimary: [{pair: 0, method: cold, probe: scramble},"
         " {pair: 0, method: cold, probe: scramble, against: independent}]",
         "study.yaml, line 11: primary.1: this contrast is declared above already: declare each once"),
        ("label: cold", "label: earlier_teacher", "two arms of this pair are called 'earlier_teacher'"),
        ("seeds: [3, 4]", "arms: [independent, shorter_independents]",
         "study.yaml, line 10: arms: shorter_independents take 40, 60 and 80 % of the epochs, and of the 3 of 'cnn' these are 1, 2, 2"),
        ("seeds: [3, 4]", "seeds: [3, 4]\nseeds: [5]", "study.yaml, line 11: this is not YAML: 'seeds' stands here twice"),
        ("learning_rate: 1e-2", "learning_rat: 1e-2", "study.yaml, line 4: networks.cnn.training: learning_rat: there is no setting"),
        ("images: {source: trifeature}", "", "`images` is missing"),
        ("images: {source: trifeature}", "images: [", "this is not YAML"),
    ],
)  # fmt: skip
def test_every_mistake_is_named_with_its_line(old: str, new: str, expected: str) -> None:
    assert expected in refusal(STUDY.replace(old, new))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SettingError, match="cannot read the study file nowhere.yaml"):
        read_study(Path("nowhere.yaml"))


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(SettingError, match="no text file in UTF-8"):
        read_study(tmp_path / "study.yaml")


def test_two_pairs_may_not_hide_behind_one_label() -> None:
    second = "pairs:\n  - {teacher: vit, student: cnn, methods: [{name: kd, temperature: 2}]}\n"
    assert "two pairs join vit and cnn by 'kd'" in refusal(STUDY.replace("pairs:\n", second))


def test_merge_keys_serve() -> None:
    study = parse_study(STUDY.replace("training:\n  epochs: 3\n", "training:\n  <<: {epochs: 7}\n"))
    assert study.training.epochs == 7


def test_a_list_is_not_a_study() -> None:
    assert "a study file is a mapping" in refusal("- 1")


def test_what_is_wanted_names_a_probe_of_the_study_or_a_figure() -> None:
    study = parse_study(STUDY + "wanted: {scramble: up, shape_bias: down, cue_choice_texture: down}\n")
    assert study.wanted == {"scramble": "up", "shape_bias": "down", "cue_choice_texture": "down"}
    refused = refusal(STUDY + "wanted: {scrmble: up}\n")
    assert "wanted.scrmble: neither a probe of this study nor a figure is called 'scrmble'. Did you mean 'scramble'?" in refused
    assert "Did you mean 'retention'?" in refusal(STUDY + "wanted: {retentoin: up}\n")
    assert "'up' or 'down'" in refusal(STUDY + "wanted: {scramble: sideways}\n")
