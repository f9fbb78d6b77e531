"""Metrics: one file each, numpy in, `Estimate` out (or several by name), torch-free.

A metric names what it reads; the comparison supplies it by name and applies the metric wherever all of it exists (what has a default
may be missing):

- `logits`, `decisions` (the class answered), `logits_or_decisions`, `labels`;
- `probe_correct`, `clean_correct`: right or wrong on the same images, on a probe and on the clean set;
- `clean_logits`, `probe_logits`, `clean_decisions`, `probe_decisions`: the answers to the same images, on the clean set and on a probe;
- `clean_spread`: how far each image's clean prediction is from the others' (see `js_invariance`), the same for every probe;
- `probabilities`: softmax(logits / the network's own temperature), fitted on clean validation images;
- `pool_probe_accuracies`, `pool_clean_accuracies`: one figure a network of a pool, [networks], on the same sets;
- `student_logits`, `teacher_logits`: the answers of a network and of its teacher on the same images;
- `student_decisions`, `teacher_decisions`, `independent_decisions`, `second_independent_decisions`: of four networks on the same images;
- `decisions_a`, `decisions_b`, `correct_a`, `correct_b`: of two networks on the same images;
- `shape_labels`, `texture_labels`, `colour_labels`, and so on: one for each factor of an image set;
- `attention_distance`, `receptive_field`: what the instruments of these names gave;
- `features_a`, `features_b`: features of two networks on the same images;
- keyword-only `chance`: the largest class share, what a constant answer scores; and `temperature`: the network's own.

Arrays run over images, [images]; where a probe was drawn more than once, or its levels are averaged, they carry a leading
axis, [draws, images] (logits [draws, images, classes]). Average over that axis inside an image before averaging over
images: draws are not extra images. Labels and decisions may be integers or text. Empty input is a ValueError; a figure that
means nothing is `Estimate.not_measurable` with the reason, never NaN.
"""
