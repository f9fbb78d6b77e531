"""Decisions made elsewhere: what a file may look like, what is refused, and that the figures are those of the metrics."""

import gzip
from pathlib import Path

import duckdb
import numpy as np
import pytest

from crossdistill.compare import read_table
from crossdistill.core.errors import DecisionsError
from crossdistill.core.records import PairRow, ResultRow
from crossdistill.metrics.error_consistency import error_consistency
from crossdistill.metrics.shape_bias import shape_bias
from crossdistill.study.decisions import evaluate_decisions, read_decisions

ANIMALS = np.array(["bear", "cat", "dog", "owl"])


@pytest.fixture
def write(tmp_path):
    """Write lines as a file of decisions and give its path."""

    def written(*lines, name="decisions.csv"):
        path = tmp_path / name
        text = "".join(f"{line}\n" for line in lines)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return written


@pytest.fixture
def conflict():
    """Two networks and a person on 160 images in conflict and 40 without: {network: decisions}, shapes, textures."""
    generator = np.random.default_rng(0)
    shapes, textures = ANIMALS[np.arange(200) % 4], ANIMALS[(np.arange(200) % 4 + np.arange(200) // 40) % 4]
    answers = {name: np.where(generator.random(200) < share, shapes, textures) for name, share in {"net/a": 0.3, "net b": 0.5}.items()}
    person = np.where(generator.random(200) < 0.1, "na", shapes)
    return {**answers, "person": person}, shapes, textures


def lines_of(answers, shapes, textures, order=None):
    rows = [
        f"{network},img{i},{shapes[i]},{textures[i]},{decisions[i]}" for network, decisions in answers.items() for i in range(len(shapes))
    ]
    return ["subject,image_id,shape,texture,decision", *(rows if order is None else [rows[i] for i in order])]


def figures(rows):
    return {(row.run, row.probe, row.level, row.metric): row for row in rows}


def test_profiles_are_those_of_the_metrics(write, conflict, tmp_path):
    answers, shapes, textures = conflict
    found = evaluate_decisions(write(*lines_of(*conflict)), out=tmp_path / "out")
    of = figures(found.results)
    for network, decisions in answers.items():
        expected = shape_bias(decisions, shapes, textures)
        row = of[network, "conflict", "", "shape_bias"]
        assert (row.value, row.low, row.high, row.n) == (expected.value, expected.low, expected.high, expected.n)
        assert of[network, "conflict", "", "accuracy"].value == np.mean(decisions == shapes)  # the shape is the label
        assert of[network, "conflict", "", "cue_counts_shape"].value == np.sum((decisions == shapes) & (shapes != textures))


def test_pairs_are_those_of_the_metrics(write, conflict, tmp_path):
    answers, shapes, _ = conflict
    found = evaluate_decisions(write(*lines_of(*conflict)), out=tmp_path / "out")
    kappas = {(row.a, row.b): row.value for row in found.pairs if row.metric == "error_consistency"}
    assert kappas == {
        (a, b): error_consistency(answers[a] == shapes, answers[b] == shapes).value
        for a, b in [("net/a", "net b"), ("net/a", "person"), ("net b", "person")]
    }
    assert {"same_wrong_label_rate", "mcnemar_p_value", "consistency_ceiling_ceiling"} <= {row.metric for row in found.pairs}


def test_both_tables_are_written(write, conflict, tmp_path):
    found = evaluate_decisions(write(*lines_of(*conflict)), out=tmp_path / "out")
    assert read_table(tmp_path / "out" / "results.parquet", ResultRow) == found.results
    assert read_table(tmp_path / "out" / "pairs.parquet", PairRow) == found.pairs


def test_what_needs_logits_is_not_there(write, conflict, tmp_path):
    rows = evaluate_decisions(write(*lines_of(*conflict)), out=tmp_path / "out").results
    assert not {"confidence", "fidelity_kl", "calibration_ece"} & {row.metric for row in rows}


def test_the_order_of_rows_does_not_matter(write, conflict, tmp_path):
    order = np.random.default_rng(0).permutation(600)
    given = evaluate_decisions(write(*lines_of(*conflict)), out=tmp_path / "out")
    mixed = evaluate_decisions(write(*lines_of(*conflict, order), name="mixed.csv"), out=tmp_path / "mixed")
    assert figures(mixed.results) == figures(given.results)


@pytest.mark.parametrize("name", ["decisions.csv.gz", "dec[1]*.csv"])
def test_packed_files_and_odd_names_are_read(write, name):
    assert len(read_decisions(write("network,image,decision,label", "a,x,0,0", "b,x,1,0", name=name))) == 2


def test_a_parquet_file_with_whole_numbers_is_read(tmp_path):
    path = tmp_path / "decisions.parquet"
    duckdb.sql(
        "SELECT network, i AS image, ((i * network.length()) % 3)::TINYINT AS decision, i % 3 AS label "
        "FROM range(30) t(i), (VALUES ('a'), ('bb')) n(network)"
    ).write_parquet(str(path))
    found = figures(evaluate_decisions(path, out=tmp_path / "out").results)
    assert found["a", "clean", "", "accuracy"].value == 1
    assert found["bb", "clean", "", "accuracy"].value == pytest.approx(1 / 3)  # 2 i and i agree where i is 0


def test_a_file_with_a_column_for_each_network_is_read(write, tmp_path):
    path = write("row,true,ViT-B_32,it's", "0,7,7,7", "1,3,3,na", "2,3,5,5", "10,1,1,2")
    found = evaluate_decisions(path, out=tmp_path / "out")
    accuracies = {row.run: row.value for row in found.results if row.metric == "accuracy"}
    assert accuracies == {"ViT-B_32": 0.75, "it's": 0.25}
    assert next(row.value for row in found.pairs if row.metric == "same_wrong_label_rate") == 1


def test_na_is_an_answer_and_text_stays_as_it_is_written(write):
    (run,) = read_decisions(write("network,image,decision,label", "a,x,na,na", "a,y,07,7", "a,z,NULL,nan", "a,w,7,7"))
    seen = run.observations["clean", "", 0]
    assert (seen.decisions == seen.labels).tolist() == [True, True, False, False]  # by image: w, x, y, z


def test_a_probe_is_compared_with_the_clean_images(write, tmp_path):
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 4
    rows = ["network,image,label,decision,probe,level,draw"]
    for network in "ab":
        for probe, level, draw, accuracy, shown in [
            ("clean", "", "", 0.9, 300), ("scramble", "grid=2", 0, 0.7, 300), ("scramble", "grid=2", 1, 0.7, 300),
            ("scramble", "grid=4", 0, 0.5, 250), ("scramble", "grid=4", 1, 0.5, 250),
        ]:  # fmt: skip
            right = generator.random(300) < accuracy
            rows += [f"{network},i{i},{labels[i]},{(labels[i] + 1 - right[i]) % 4},{probe},{level},{draw}" for i in range(shown)]
    rows += [f"{network},other{i},1,{i % 2},{'own'},," for network in "ab" for i in range(100)]  # a set of images of its own
    found = evaluate_decisions(write(*rows), out=tmp_path / "out")
    of = figures(found.results)
    clean, probe = of["a", "clean", "", "accuracy"].value, of["a", "scramble", "grid=2", "accuracy"].value
    retention = of["a", "scramble", "grid=2", "retention"]
    assert retention.value == pytest.approx((probe - 0.25) / (clean - 0.25))
    assert (retention.n, retention.signal_gate) == (300, "passed")
    assert of["a", "scramble", "grid=4", "accuracy"].n_rejected == 50
    assert ("a", "scramble", "grid=4", "clean_accuracy") in of
    assert of["a", "scramble", "auc", "accuracy"].n == 250
    assert ("a", "own", "", "accuracy") in of
    assert ("a", "own", "", "retention") not in of
    assert {row.level for row in found.pairs if row.probe == "scramble"} == {"grid=2", "grid=4", "auc"}


def test_a_constant_network_is_not_measurable_beside_another(write, tmp_path):
    rows = [
        f"{network},i{i},{i % 2},{answer(i)}" for network, answer in {"a": lambda i: i % 2, "b": lambda i: 0}.items() for i in range(50)
    ]
    found = evaluate_decisions(write("network,image,label,decision", *rows), out=tmp_path / "out")
    kappa = next(row for row in found.pairs if row.metric == "error_consistency")
    assert (kappa.status, kappa.value) == ("not_measurable", None)
    assert "always right" in kappa.reason


HEAD = "network,image,decision,label"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEAD], "it holds no decisions"),
        (["network,picture,decision,label", "a,x,0,0"], "has no column 'image'; its columns are network, picture, decision, label"),
        (["image,decision,label", "x,0,0"], "has no column 'network'"),
        (["image,network,label", "x,a,0"], "has no column 'decision'"),
        (["image,label", "x,0"], "has no column 'network' and 'decision'"),
        (["network;image;decision;label", "a;x;0;0"], "has no column 'image'; its columns are network;image;decision;label"),
        ([f"{HEAD},lable", "a,x,0,0,0"], "has an unknown column 'lable'. Did you mean 'label'? Known columns: colour, decision"),
        (["network,subject,image,decision,label", "a,a,x,0,0"], "holds the column 'network' twice, as network and subject"),
        ([f"{HEAD},level", "a,x,0,0,1"], "has a column 'level' and no column 'probe'"),
        ([HEAD, "a,x,0,0", "a,x,1,0"], "network 'a', image 'x' of set 'clean' occurs 2 times"),
        ([HEAD, "a,x,0,0", "a,y,0,0", "b,x,0,0"], "network 'b', image 'y' of set 'clean' is missing"),
        ([HEAD, "a,x,0,0", "b,z,0,0"], "network 'a', image 'z' of set 'clean' is missing"),
        ([HEAD, "a,x,0,0", "b,x,0,1"], "image 'x' of set 'clean' has two values of 'label': '0' and '1'"),
        ([HEAD, "a,x,0,0", "b,x,0,"], "image 'x' of set 'clean' has no 'label', others have"),
        ([HEAD, "a,x,0,0", "a,y,0,"], "image 'y' of set 'clean' has no 'label', others have"),
        ([HEAD, "a,x,,0"], "'decision' is empty for network 'a', image 'x'"),
        ([HEAD, ",x,0,0"], "'network' is empty for network '', image 'x'"),
        (["network,image,decision", "a,x,0"], "without a column 'label' (or 'shape' and 'texture') nothing can be measured"),
        ([HEAD, "a,x,7.0,7", "a,y,3.0,3"], "no decision names a class of the images, such as '7.0' beside '7': write both alike"),
        ([f"{HEAD},probe,draw", "a,x,0,0,noise,one"], "'draw' must be a whole number, got 'one'"),
        ([f"{HEAD},probe,level", "a,x,0,0,clean,2"], "the clean images have no level and no draw but 0, got level '2', draw 0"),
        (
            [f"{HEAD},probe,level,draw", "a,x,0,0,noise,1,0", "a,x,0,0,noise,1,1", "a,x,0,0,noise,2,0"],
            "the levels of probe 'noise' have 1 to 2 draws",
        ),
        ([f"{HEAD},probe", "a,x,0,0,clean", "a,x,0,1,noise"], "image 'x' has label '0' in one set and '1' in another"),
        ([HEAD, "a,x,0,0,extra"], "cannot read"),
        ([HEAD, 'a,x,"0,0'], "cannot read"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_refused_in_words(write, lines, message):
    with pytest.raises(DecisionsError) as refused:
        read_decisions(write(*lines))
    assert message in str(refused.value)
    assert "decisions.csv" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DecisionsError, match="there is no file .*nowhere.csv"):
        read_decisions(tmp_path / "nowhere.csv")


def test_another_kind_of_file_is_refused(write):
    with pytest.raises(DecisionsError, match="give a .csv, .csv.gz or .parquet file"):
        read_decisions(write(HEAD, name="decisions.xlsx"))


@pytest.mark.parametrize("name", ["decisions.parquet", "decisions.csv"])
def test_a_damaged_file_is_refused(tmp_path, name):
    path = Path(tmp_path / name)
    path.write_bytes(b"network,image,decision,label\n\xff\xfe\x00\x01,\xff,0,0\n")
    with pytest.raises(DecisionsError, match="cannot read"):
        read_decisions(path)


def test_fractions_are_no_classes(tmp_path):
    path = tmp_path / "decisions.parquet"
    duckdb.sql("SELECT 'a' AS network, 'x' AS image, 7.0::DOUBLE AS decision, 7 AS label").write_parquet(str(path))
    with pytest.raises(DecisionsError, match="column 'decision' holds DOUBLE, expected text or whole numbers"):
        read_decisions(path)


def test_nothing_is_written_for_a_malformed_file(write, tmp_path):
    with pytest.raises(DecisionsError):
        evaluate_decisions(write(HEAD), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_reads_decisions_and_says_what_does_not_go_with_them(tmp_path, command, capsys):
    file = tmp_path / "answers.csv"
    rows = [f"{network},{i},{'cat' if (i + k) % 3 else 'dog'},cat,dog" for k, network in enumerate(("one", "two")) for i in range(60)]
    file.write_text("network,image,decision,shape,texture\n" + "\n".join(rows) + "\n")
    assert command("evaluate", "--decisions", file, "--out", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "shape_bias" in printed
    assert "0.667" in printed
    assert (tmp_path / "out" / "pairs.parquet").exists()
    assert command("evaluate", "a.safetensors", "--decisions", file, "--out", tmp_path / "out") == 2
    assert "--decisions stands alone" in capsys.readouterr().err
    assert command("evaluate", "--out", tmp_path / "out") == 2
    assert "or a file of --decisions" in capsys.readouterr().err
