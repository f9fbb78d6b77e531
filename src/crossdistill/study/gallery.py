"""The gallery of methods as Markdown: docs/methods.md, and what `crossdistill list methods NAME` shows."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from crossdistill.core.setting_words import default_words, joined
from crossdistill.study.method_card import SOURCES, MethodCard
from crossdistill.study.method_trial import BATCH, N_IMAGES, PAIRS, SIDE, Trial

REGENERATE = "make docs"

TAPS = {
    "logits": "logits",
    "pooled": "pooled vector",
    "last": "last map",
    "dense": "logits at each position",
    "attention": "queries, keys and values of the last block",
}
READOUTS = {
    "class": "the class head",
    "mean_heads": "the mean of the heads' logits",
    "mean_heads_dense": "the mean of the heads' logits and of the dense logits averaged over positions",
}

INTRODUCTION = f"""\
# Distillation methods

<!-- Generated from the code: {REGENERATE} -->

Every method adds terms to the cross-entropy with the labels (`ce`) and can be used for any pair of teacher and student that it
does not refuse. Name it in a study file, alone or with settings:

```yaml
methods: [kd, {{name: crd, negatives: batch}}]
```

Beside its own settings every method takes `weight` (multiplies all its terms but `ce`; from a list
[one is chosen](training.md#a-grid-of-weights)), `weights` (replaces the published weight of single terms), `ramp_epochs` (the terms
but `ce` rise over so many epochs), `until` (the share of the epochs in which the teacher teaches) and `label` (another name for the
arm, where a method stands twice in a study). `crossdistill list methods NAME` shows one entry of this page.

## At a glance

Sorted by what a method reads of the teacher. Parameters and cost are those of two pairs of small networks, first
{" and then ".join(f"{pair} ({teacher} teaches {student})" for pair, (teacher, student) in PAIRS.items())}, on {N_IMAGES:,} images of
{SIDE} x {SIDE} pixels in 10 classes, with every setting at its default. *Trained* parameters are discarded after training, *kept* ones
stay in the student. *Cost* is that of a training step relative to `kd`: matrix products and convolutions of both
forward passes, the losses and the backward pass, counted for {BATCH} images. It is the same on every machine, and blind to memory
traffic and element-wise work; measured times of a step stand in `benchmarks/results/method_cost.json`. A term that compares the images
of a batch with one another weighs more in a larger batch.
"""


def gallery(cards: Iterable[MethodCard]) -> str:
    """The whole page: a table of all methods, then a section for each, by family and name."""
    families = [*dict.fromkeys(reversed(SOURCES.values())), ""]
    ordered = sorted(cards, key=lambda card: (families.index(card.family), card.name))
    sections = []
    for family in dict.fromkeys(card.family for card in ordered):
        sections.append(f"## Methods that read the teacher's {family}" if family else "## Other methods")
        sections += [section(card) for card in ordered if card.family == family]
    header = ("method", "paper", "direction", "reads of the teacher", "trained", "kept", "cost")
    return "\n".join([INTRODUCTION, _table(header, [_glance(card) for card in ordered]), "\n\n".join(sections), ""])


def section(card: MethodCard) -> str:
    """One method: its summary, docstring, facts, settings and what it takes on the two pairs."""
    settings = [(f"`{name}`", setting["type"], _default(setting)) for name, setting in card.settings.items()]
    return "\n\n".join(
        [
            f"### {card.name}",
            f"*{card.summary}*",
            card.description,
            "\n".join(f"- **{name}**: {words}" for name, words in _facts(card).items()),
            *([_table(("setting", "takes", "default"), settings).strip()] if settings else []),
            _table((f"at {SIDE} pixels, {N_IMAGES:,} images", *PAIRS), _takes(card.trials)).strip(),
            *(f"{trial.pair}: {trial.refusal}" for trial in card.trials if trial.refusal),
        ]
    )


def _facts(card: MethodCard) -> dict[str, str]:
    possible = [trial for trial in card.trials if not trial.refusal]
    lines = {
        "Paper": card.paper,
        "Direction": card.direction,
        "Terms and weights": _weights(card),
        "Reads of the teacher": _by_pair(possible, lambda trial: _taps(trial.teacher_reads)),
        "Reads of the student": _by_pair(possible, lambda trial: _taps(trial.student_reads)),
        "Shows of each image": _by_pair(possible, _views) if card.changes_views else "",
        "Preparation of the student": card.prepares,
        "Before the students": _by_pair(possible, _warm_up),
        "Adversary": "yes, with an optimiser of its own" if any(trial.adversary for trial in possible) else "",
        "Prediction": _by_pair(possible, lambda trial: READOUTS[trial.readout]),
        "The teacher's answer to an image": _by_pair(
            possible, lambda trial: "fixed, so that it can be cached" if trial.cacheable else "needed afresh each time: no cache"
        ),
    }
    return {name: words for name, words in lines.items() if words}


def _by_pair(trials: Sequence[Trial], words: Callable[[Trial], str]) -> str:
    """What is said of every pair, once where it is the same for all."""
    said = {trial.pair: words(trial) for trial in trials}
    if len(set(said.values())) <= 1:
        return next(iter(said.values()), "")
    return "; ".join(f"{pair}: {text}" for pair, text in said.items())


def _weights(card: MethodCard) -> str:
    def listed(weights: Mapping[str, float]) -> str:
        return ", ".join(f"`{term}` {weight:g}" for term, weight in weights.items())

    others = [f"with `{setting}` {listed(weights)}" for setting, weights in card.other_weights.items()]
    following = " (at the defaults: they follow the settings)" if card.weights_follow_settings and not others else ""
    return "; ".join([listed(card.weights) + following, *others])


def _taps(taps: Sequence[str]) -> str:
    """Taps in words, the stages together.

    >>> _taps(["logits", "stage2", "stage3", "last"])
    'logits, maps of stages 2 and 3, last map'
    """
    stages = [tap for tap in taps if tap.startswith("stage")]
    numbers = joined([tap.removeprefix("stage") for tap in stages], "and")
    together = f"map{'s' * (len(stages) > 1)} of stage{'s' * (len(stages) > 1)} {numbers}"
    return ", ".join(dict.fromkeys(together if tap in stages else TAPS.get(tap, tap) for tap in taps))


def _views(trial: Trial) -> str:
    if trial.student_rows == trial.teacher_rows == 1:
        return "one row, changed by the method"
    return f"{trial.student_rows} rows to the student, {trial.teacher_rows} to the teacher"


def _warm_up(trial: Trial) -> str:
    if not trial.warmed_up:
        return ""
    return f"a module learns from the frozen teacher for {trial.warm_up_epochs} epochs, once for all its students"


def _glance(card: MethodCard) -> tuple[str, ...]:
    possible = [trial for trial in card.trials if not trial.refusal]
    return (
        f"[{card.name}](#{card.name})",
        card.paper,
        card.direction,
        _by_pair(possible, lambda trial: _taps(trial.teacher_reads)),
        _both(card.trials, lambda trial: f"{trial.trained + trial.adversary:,}"),
        _both(card.trials, lambda trial: f"{trial.kept:,}"),
        _both(card.trials, _cost),
    )


def _both(trials: Iterable[Trial], words: Callable[[Trial], str]) -> str:
    said = ["refused" if trial.refusal else words(trial) for trial in trials]
    return said[0] if len(set(said)) == 1 else " / ".join(said)


def _takes(trials: Sequence[Trial]) -> list[tuple[str, ...]]:
    """Rows of what a method takes on each pair; those that are zero for all are left out, but for the first and the last."""
    rows: dict[str, tuple[Callable[[Trial], int | float], Callable[[Trial], str]]] = {
        "trained parameters, discarded afterwards": (lambda trial: 1, lambda trial: f"{trial.trained:,}"),
        "adversary's parameters, discarded afterwards": (lambda trial: trial.adversary, lambda trial: f"{trial.adversary:,}"),
        "parameters kept in the student": (lambda trial: trial.kept, lambda trial: f"{trial.kept:,}"),
        "parameters trained on the teacher before": (lambda trial: trial.warmed_up, lambda trial: f"{trial.warmed_up:,}"),
        "memory held and not trained": (lambda trial: trial.state_bytes, lambda trial: _memory(trial.state_bytes)),
        "cost of a step, `kd` = 1": (lambda trial: 1, _cost),
    }
    return [
        (name, *("refused" if trial.refusal else words(trial) for trial in trials))
        for name, (size, words) in rows.items()
        if any(size(trial) for trial in trials)
    ]


def _cost(trial: Trial) -> str:
    return f"{trial.relative_cost:.2f}"


def _memory(n_bytes: int) -> str:
    """Bytes in the unit that reads best.

    >>> _memory(0), _memory(2048), _memory(3 * 2**20)
    ('0', '2.0 KB', '3.0 MB')
    """
    if n_bytes == 0:
        return "0"
    return f"{n_bytes / 2**10:.1f} KB" if n_bytes < 2**20 else f"{n_bytes / 2**20:.1f} MB"


def _default(setting: Mapping[str, Any]) -> str:
    return f"`{default_words(setting['default'])}`" if "default" in setting else "required"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
