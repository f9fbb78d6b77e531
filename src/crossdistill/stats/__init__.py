"""Intervals and tests: Wilson, paired bootstrap, Student, Welch, Fieller, Holm, Benjamini-Hochberg, smallest detectable effect (numpy in).

Images are the sample of a single network's figure; runs are the sample of a claim about a method. The two are never mixed:
run means already contain the image variance.
"""

from crossdistill.stats.corrections import benjamini_hochberg, holm
from crossdistill.stats.intervals import (
    LEVEL,
    Interval,
    Z,
    mean_interval,
    paired_bootstrap,
    percentile_interval,
    resampled_means,
    share_interval,
    t_quantile,
    wilson,
)
from crossdistill.stats.power import fewest_runs, minimum_detectable_effect, runs_needed
from crossdistill.stats.runs import Ratio, Spread, TTest, difference_spread, fieller, has_spread, one_sample, t_test, welch

__all__ = [
    "LEVEL",
    "Interval",
    "Ratio",
    "Spread",
    "TTest",
    "Z",
    "benjamini_hochberg",
    "difference_spread",
    "fewest_runs",
    "fieller",
    "has_spread",
    "holm",
    "mean_interval",
    "minimum_detectable_effect",
    "one_sample",
    "paired_bootstrap",
    "percentile_interval",
    "resampled_means",
    "runs_needed",
    "share_interval",
    "t_quantile",
    "t_test",
    "welch",
    "wilson",
]
