"""The inheritance table: the students of each method against every control, figure by figure, with the teacher's gap and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from crossdistill.compare.drafts import Draft, Drafter
from crossdistill.compare.gates import Gates
from crossdistill.compare.observed import Contrast, ObservedRun, Pair
from crossdistill.compare.verdicts import Evidence, judge
from crossdistill.core.records import Against, InheritanceRow, ResultRow
from crossdistill.stats import benjamini_hochberg, holm


@dataclass(frozen=True)
class Corrected:
    """A contrast's p among those that it is corrected with: by Holm's rule if it was declared, else by Benjamini and Hochberg's."""

    p_holm: float | None = None
    p_bh: float | None = None
    family_size: int = 0


def inheritance_table(
    results: Sequence[ResultRow], runs: Sequence[ObservedRun], pairs: Sequence[Pair], primary: Sequence[Contrast],
    gates: Gates | None = None,
) -> list[InheritanceRow]:  # fmt: skip
    """One row per pair, method, contrast (`Against`) and figure: students minus a control, beside what there was to inherit.

    Interval and p come from the one procedure that `p_source` names; `docs/measuring.md` gives each one's formula. Differences are in
    the figure's own unit (shares: 0.01 is one point). Rows of a contrast exist where any run of its control arm does, or where it was
    declared. The declared contrasts are of accuracy at level "auc" (the only level where a probe has one), against the second
    independents of the rate of siding with the teacher there. Holm's correction runs over them all, counting those that could not be
    measured as p = 1; Benjamini and Hochberg's over all other rows that have a p. Where an accuracy gate or a probe's signal gate
    failed, the contrast is not measurable and has no figures, accuracy included: a difference between networks on images
    without signal would be read as a bias.
    `gates` are those of the runs, where they are known already. Raises ValueError for a declared contrast of a pair or method that does
    not exist.
    """
    _check(pairs, primary)
    drafter = Drafter(results, runs, gates or Gates.of(runs))
    contrasts = [(pair, method, against) for pair in pairs for method in pair.methods for against in get_args(Against)]
    drafts = [draft for contrast in contrasts for draft in drafter.drafts(*contrast, _declared(primary, *contrast))]
    with_twin = {(pair.index, method) for pair in pairs for method in pair.methods if drafter.has_twin(pair, method)}
    return [
        _row(draft, corrected, (draft.sides.pair.index, draft.sides.method) in with_twin)
        for draft, corrected in zip(drafts, _corrected(drafts), strict=True)
    ]


def _check(pairs: Sequence[Pair], primary: Sequence[Contrast]) -> None:
    known = {(pair.index, method) for pair in pairs for method in pair.methods}
    for contrast in primary:
        if (contrast.pair, contrast.method) not in known:
            raise ValueError(f"the declared contrast of '{contrast.method}' in pair {contrast.pair} has no such pair and method")


def _declared(primary: Sequence[Contrast], pair: Pair, method: str, against: Against) -> list[str]:
    """The probes of a pair and method's declared contrasts with one control."""
    return [c.probe for c in primary if (c.pair, c.method, c.against) == (pair.index, method, against)]


def _corrected(drafts: Sequence[Draft]) -> list[Corrected]:
    """Each draft's corrected p; the two families are never mixed."""
    declared = [draft for draft in drafts if draft.primary]
    by_holm = iter(holm([1.0 if draft.compared.p is None else draft.compared.p for draft in declared]))
    others = [draft.compared.p for draft in drafts if not draft.primary and draft.compared.p is not None]
    by_benjamini_hochberg = iter(benjamini_hochberg(others) if others else [])
    found = []
    for draft in drafts:
        if draft.primary:
            p_holm = next(by_holm)
            found.append(Corrected(None if draft.compared.p is None else p_holm, family_size=len(declared)))
        elif draft.compared.p is None:
            found.append(Corrected())
        else:
            found.append(Corrected(p_bh=next(by_benjamini_hochberg), family_size=len(others)))
    return found


def _row(draft: Draft, corrected: Corrected, has_twin: bool) -> InheritanceRow:
    sides, compared, gap = draft.sides, draft.compared, draft.gap
    judgement = judge(
        Evidence(
            n_runs=draft.n_runs,
            difference=compared.difference,
            gap=gap,
            minimum_detectable=compared.minimum_detectable,
            runs_needed=compared.runs_needed,
            inaction=draft.action.inaction,
            p_holm=corrected.p_holm,
            p_bh=corrected.p_bh,
            family_size=corrected.family_size,
            against=sides.against,
            changed=sides.method in sides.pair.changed,
            has_twin=has_twin,
            no_control=sides.pair.no_control.get(sides.method),
            one_teacher=sides.n_teachers == 1,
        )
    )
    return InheritanceRow(
        pair=sides.pair.index,
        teacher=sides.pair.teacher,
        student=sides.pair.student,
        method=sides.method,
        contrast=sides.against,
        probe=draft.figure.probe,
        metric=draft.figure.metric,
        level_or_auc=draft.figure.level,
        role="primary" if draft.primary else "secondary",
        difference=compared.difference.value,
        low=compared.difference.low,
        high=compared.difference.high,
        p_raw=compared.p,
        p_holm=corrected.p_holm,
        p_bh=corrected.p_bh,
        p_source=compared.source,
        family_size=corrected.family_size,
        minimum_detectable=compared.minimum_detectable,
        runs_needed=compared.runs_needed,
        teacher_gap=gap.value,
        gap_low=gap.low,
        gap_high=gap.high,
        fidelity=draft.action.gained_agreement,
        n_runs=draft.n_runs,
        n_teachers=sides.n_teachers,
        teachers_apart=draft.apart.difference,
        verdict=judgement.verdict,
        reason=judgement.reason,
        signal_gate=draft.signal.status if draft.signal else "",
        note=draft.signal.note if draft.signal else None,
    )
