"""What things are called on the page: verdicts, figures, probes."""

import re
from collections.abc import Mapping

from crossdistill.compare.verdicts import ENOUGH_RUNS
from crossdistill.core.records import InheritanceRow, Verdict

NOT_RUN = "gate not run"
"""The label of a probe of which nobody knows whether it carries enough signal."""

TITLES: Mapping[Verdict, str] = {
    "inherited": "Inherited",
    "moved_away": "Moved away",
    "equivalent": "No difference",
    "unresolved": "Unresolved",
    "nothing_to_inherit": "Nothing to inherit",
    "method_did_not_act": "Method did not act",
    "not_measurable": "Not measurable",
}
"""The verdicts in the words of the page, those that say most first."""

MEANINGS: Mapping[Verdict, str] = {
    "inherited": "the interval lies off zero, on the teacher's side",
    "moved_away": "the interval lies off zero, on the side away from the teacher",
    "equivalent": "the whole interval lies inside the margin around zero",
    "unresolved": "these runs cannot tell the difference from zero, or are too few for a verdict",
    "nothing_to_inherit": "teacher and control do not differ, so there is nothing to take over",
    "method_did_not_act": "the student answers no more like its teacher than an independent student does",
    "not_measurable": "a network is too close to chance, the probe holds too little signal, or there are too few runs, to mean anything",
}


def shown_verdict(row: InheritanceRow) -> Verdict:
    """The row's verdict; `unresolved` where it claims more than fewer than five runs an arm can carry."""
    too_bold = row.n_runs < ENOUGH_RUNS and row.verdict in ("inherited", "moved_away", "equivalent")
    return "unresolved" if too_bold else row.verdict


def quantity(row: InheritanceRow) -> str:
    """What was measured, in words: "clean accuracy", "scramble accuracy at grid=4", "texture choices on conflict images".

    The metric's own name serves where no better word is known, so that a new metric needs no change here.
    """
    level = "" if row.level_or_auc in ("", "auc") else f" at {row.level_or_auc}"
    probe = plain(row.probe)
    if row.metric == "accuracy":
        return f"{probe} accuracy{level}"
    return f"{metric_words(row.metric)} on {probe} images{level}"


def is_choice(metric: str) -> bool:
    """Whether a metric says which cue the answers follow.

    >>> is_choice("cue_choice_shape"), is_choice("accuracy")
    (True, False)
    """
    return metric.startswith("cue_choice_") or metric == "shape_bias"


def metric_words(metric: str) -> str:
    """A metric's name in words.

    >>> metric_words("cue_choice_shape"), metric_words("shape_bias"), metric_words("mean_attention_distance_layer2")
    ('shape choices', 'shape bias', 'attention distance of layer 2')
    """
    if metric in _METRICS:
        return _METRICS[metric]
    if layer := re.fullmatch(r"mean_attention_distance_layer(\d+)(?:_head(\d+))?", metric):
        return f"attention distance of layer {layer[1]}" + (f", head {layer[2]}" if layer[2] else "")
    return f"{plain(metric.removeprefix('cue_choice_'))} choices" if metric.startswith("cue_choice_") else plain(metric)


_METRICS = {
    "agreement_kappa": "answers unchanged (kappa)",
    "js_invariance": "probabilities unchanged (Jensen-Shannon)",
    "conditional_retention_share": "right on clean images and still right",
    "conditional_retention_chance": "right on clean images and still right, by chance",
    "conditional_retention_above_chance": "right on clean images and still right, above chance",
    "accuracy_residual_share": "accuracy beyond what clean accuracy foretells",
    "accuracy_residual_logit": "accuracy beyond what clean accuracy foretells, in logits",
    "accuracy_residual_pool_sd": "scatter of other networks about that line, in logits",
    "calibration_ece": "expected calibration error",
    "calibration_ece_equal_mass": "expected calibration error, bins of equal mass",
    "calibration_nll": "negative log likelihood",
    "calibration_brier": "Brier score",
    "error_consistency": "error consistency (kappa)",
    "consistency_ceiling_ceiling": "largest error consistency that the two accuracies allow",
    "consistency_ceiling_reached": "part of the largest error consistency that is reached",
    "consistency_ceiling_observed": "both right or both wrong",
    "consistency_ceiling_expected": "both right or both wrong, by chance",
    "same_wrong_label_rate": "one answer where both are wrong",
    "same_wrong_label_chance": "one answer where both are wrong, between different images",
    "side_with_teacher": "siding with the teacher",
    "side_with_teacher_wrong": "siding with a wrong teacher",
    "side_with_teacher_rate": "siding with the teacher",
    "side_with_teacher_second_rate": "a second independent student siding with the teacher",
    "side_with_teacher_excess": "siding with the teacher, beyond a second independent student",
    "side_with_teacher_wrong_rate": "siding with a wrong teacher",
    "side_with_teacher_wrong_second_rate": "a second independent student siding with a wrong teacher",
    "side_with_teacher_wrong_excess": "siding with a wrong teacher, beyond a second independent student",
    "effective_receptive_field_side_50": "side of the square that holds 50 % of the gradient",
    "effective_receptive_field_side_99": "side of the square that holds 99 % of the gradient",
    "mean_attention_distance": "attention distance",
    "fidelity_agreement": "same answer as the teacher",
    "fidelity_kl": "distance from the teacher's probabilities (KL)",
}


def plain(name: str) -> str:
    """A name of the code as words.

    >>> plain("localized_noise")
    'localized noise'
    """
    return name.replace("_", " ")


def capitalised(text: str) -> str:
    """The text with its first letter in upper case and the rest untouched.

    >>> capitalised("scramble accuracy at SLIC")
    'Scramble accuracy at SLIC'
    """
    return text[:1].upper() + text[1:]
