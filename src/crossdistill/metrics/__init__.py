"""Metrics: one file each, numpy in, `Estimate` out (or several by name), torch-free.

A metric names what it reads; the comparison supplies it by name and applies the metric wherever all of it exists:

- `logits`, `decisions` (the class answered), `logits_or_decisions`, `labels`;
- `probe_correct`, `clean_correct`: right or wrong on the same images, on a probe and on the clean set;
- `student_logits`, `teacher_logits`: the answers of a network and of its teacher on the same images;
- `shape_labels`, `texture_labels`, `colour_labels`, and so on: one for each factor of an image set;
- keyword-only `chance`: the largest class share, what a constant answer scores.

Arrays run over images, [images]; where a probe was drawn more than once, or its levels are averaged, they carry a leading
axis, [draws, images] (logits [draws, images, classes]). Average over that axis inside an image before averaging over
images: draws are not extra images. Labels and decisions may be integers or text. Empty input is a ValueError; a figure that
means nothing is `Estimate.not_measurable` with the reason, never NaN.
"""
