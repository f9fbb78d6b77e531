"""Method cards say what is planted in a method, and the committed gallery is what the code says today."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from crossdistill.cli import main
from crossdistill.core import registry
from crossdistill.core.types import Activations, Batch, Needs, WarmUp
from crossdistill.ops.losses import cross_entropy
from crossdistill.study.gallery import REGENERATE, gallery, section
from crossdistill.study.method_card import MethodCard, method_card

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def published(settings: Mapping[str, Any]) -> dict[str, float]:
    return {"ce": 1.0, "match": 3.0 if settings["mode"] == "strong" else 0.5}


def needs(settings: Mapping[str, Any], student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Needs:
    refusal = "its teacher must attend." if "attention" not in teacher else None
    return Needs(("pooled",), ("pooled", "last"), cacheable=False, refusal=refusal)


def twice(images: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows = images.repeat_interleave(2, dim=0)
    return rows, rows, torch.ones(len(rows), dtype=torch.bool)


def add_head(network: Any, settings: Mapping[str, Any]) -> None:
    """Adds a head.

    This line is not for the card.
    """
    network.add_head("planted")
    network.readout = "mean_heads"


class Planted(nn.Module):
    """64 + 8 parameters trained, 10 of an adversary, 16 bytes of buffer, 5 frozen parameters of the warm-up."""

    def __init__(self, warm: nn.Module) -> None:
        super().__init__()
        self.trained, self.judge, self.warm = nn.Linear(8, 8), nn.Linear(9, 1), warm
        self.register_buffer("bank", torch.zeros(4))

    def forward(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        assert student.pooled is not None
        assert teacher.pooled is not None
        match = (self.trained.weight.mean() * student.pooled.mean() - teacher.pooled.mean()).square() + self.trained.bias.mean()
        return {"ce": cross_entropy(student.logits[::2], batch.targets), "match": match}

    def adversary(self, batch: Batch, student: Activations, teacher: Activations) -> dict[str, Tensor]:
        return {"judge": self.judge.weight.square().mean() + self.judge.bias.mean()}

    def adversary_parameters(self) -> list[nn.Parameter]:
        return list(self.judge.parameters())


@registry.method(
    paper="Planted 2024", weights=published, direction="ViT to CNN", needs=needs, views=lambda settings: twice, prepare_student=add_head,
    warm_up=WarmUp(lambda teacher, settings: nn.Linear(4, 1), lambda settings: {"epochs": 7}),
)  # fmt: skip
def planted(
    student: Any, teacher: Any, images: Any, rng: Any, warm: Any, *, mode: Literal["weak", "strong"] = "weak", size: int | None = None
) -> Planted:
    """Matches the mean of the pooled vectors."""
    return Planted(warm)


@registry.method(paper="Planted 2024", weights={"ce": 0.0, "idle": 1.0})
def idle(student: Any, teacher: Any, images: Any, rng: Any) -> Callable[..., dict[str, Tensor]]:
    """Reads the teacher not at all."""
    return lambda batch, student, teacher: {"ce": cross_entropy(student.logits, batch.targets), "idle": student.logits.square().mean()}


@pytest.fixture(scope="module")
def card() -> MethodCard:
    return method_card(registry.as_plugin("planted", planted))


def test_a_card_counts_what_was_planted(card: MethodCard) -> None:
    trial = card.trials[0]
    assert (trial.trained, trial.adversary, trial.warmed_up, trial.warm_up_epochs) == (72, 10, 5, 7)
    assert trial.kept == 64 * 10 + 10, "a head on the 64 pooled channels of resnet20, for 10 classes"
    assert trial.state_bytes == 4 * (4 + 5)
    assert (trial.student_rows, trial.teacher_rows, trial.cacheable) == (2, 2, False)


def test_reads_are_the_taps_and_the_logits_only_where_they_were_touched(card: MethodCard) -> None:
    assert card.trials[0].teacher_reads == ("pooled", "last")
    assert card.trials[0].student_reads == ("logits", "pooled")
    assert card.family == "feature maps"
    assert method_card(registry.as_plugin("idle", idle)).trials[0].teacher_reads == ()


def test_two_rows_an_image_cost_twice_what_kd_costs(card: MethodCard) -> None:
    # Beside both networks on twice the rows there is the added head: 1,280 operations an image and pass, of 70 million.
    assert card.trials[0].relative_cost == pytest.approx(2, rel=1e-3)
    kd = method_card(registry.get("method", "kd"))
    assert [trial.relative_cost for trial in kd.trials] == [1.0, 1.0]


def test_weights_under_other_choices_are_said_with_the_choice(card: MethodCard) -> None:
    assert dict(card.weights) == {"ce": 1.0, "match": 0.5}
    assert card.other_weights == {"mode: strong": {"ce": 1.0, "match": 3.0}}


def test_a_refused_pair_is_said_with_its_sentence(card: MethodCard) -> None:
    vit_to_cnn, cnn_to_vit = card.trials
    assert vit_to_cnn.refusal is None
    assert cnn_to_vit.refusal == "method 'planted' cannot be used here: its teacher must attend."
    assert f"CNN -> ViT: {cnn_to_vit.refusal}" in section(card)


def test_an_entry_says_everything_in_words(card: MethodCard) -> None:
    text = section(card)
    for line in [
        "- **Terms and weights**: `ce` 1, `match` 0.5; with `mode: strong` `ce` 1, `match` 3",
        "- **Reads of the teacher**: pooled vector, last map",
        "- **Shows of each image**: 2 rows to the student, 2 to the teacher",
        "- **Preparation of the student**: Adds a head.",
        "- **Before the students**: a module learns from the frozen teacher for 7 epochs, once for all its students",
        "- **Adversary**: yes, with an optimiser of its own",
        "- **Prediction**: the mean of the heads' logits",
        "- **The teacher's answer to an image**: needed afresh each time: no cache",
        "| `size` | whole number or null | `null` |",
        "| adversary's parameters, discarded afterwards | 10 | refused |",
    ]:
        assert line in text
    assert "not for the card" not in text


def test_a_card_leaves_torch_as_it_was(card: MethodCard) -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    method_card(registry.as_plugin("idle", idle))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_methods_that_read_nothing_come_last(card: MethodCard) -> None:
    page = gallery([method_card(registry.as_plugin("idle", idle)), card])
    assert page.index("## Methods that read the teacher's feature maps") < page.index("## Other methods")


def test_the_committed_gallery_is_what_the_code_says() -> None:
    written = gallery(method_card(registry.get("method", name)) for name in registry.names("method"))
    assert PAGE.read_text(encoding="utf-8") == written, f"docs/methods.md is not what the code says today; write it anew: {REGENERATE}"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["crossdistill", "list", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_command_line_shows_one_method_for_people_for_machines_and_for_pages(monkeypatch: Any, capsys: Any) -> None:
    card = SimpleNamespace(**json.loads(_output(monkeypatch, capsys, "methods", "sskd", "--json")))
    assert card.settings["keep"] == {"type": "list of 2 (number from 0 to 1)", "default": [1.0, 0.75]}
    assert [trial["student_rows"] for trial in card.trials] == [4, 4]
    assert _output(monkeypatch, capsys, "methods", "sskd", "--markdown").startswith("### sskd\n")
    shown = _output(monkeypatch, capsys, "methods", "sskd")
    assert "number from 0 to 1" in shown
    assert "**" not in shown, "for people the Markdown is rendered"


def test_only_methods_and_probes_have_a_gallery(monkeypatch: Any, capsys: Any) -> None:
    assert run(monkeypatch, "metrics", "--markdown") == 2
    assert "there is a gallery page of methods and of probes, not of metrics" in capsys.readouterr().err


def _output(monkeypatch: Any, capsys: Any, *arguments: str) -> str:
    assert run(monkeypatch, *arguments) == 0
    return capsys.readouterr().out
