"""What a t test over runs could have found: the smallest detectable effect, and the runs that an effect needs."""

from collections.abc import Callable

from crossdistill.stats.intervals import t_quantile
from crossdistill.stats.runs import Spread, difference_spread

POWER = 0.80
MOST_RUNS = 10_000  # an effect that needs more runs than this is called out of reach


def minimum_detectable_effect(standard_error: float, freedom: float) -> float:
    """The smallest true difference that a two-sided 5 % t test finds in 80 % of such studies.

    Solved with the non-central t distribution; the chance of a finding with the wrong sign (under 1e-6) is left out.
    With two runs an arm the standard error is itself badly known, and so is this figure.
    """
    from scipy.special import nctdtrinc

    # scipy's inverse is undefined at infinity; at 1e6 it is the normal case to five digits.
    freedom = min(freedom, 1e6)
    return standard_error * float(nctdtrinc(freedom, 1 - POWER, t_quantile(freedom)))


def runs_needed(difference: float, variance_a: float, variance_b: float) -> int | None:
    """The runs an arm at which Welch's test finds `difference` in 80 % of studies, at equal arms and these run variances.

    None where the difference or both variances are zero, or where more than 10,000 runs would be needed.

    >>> runs_needed(0.05, 0.03**2, 0.03**2)
    7
    """
    if variance_a + variance_b == 0:
        return None
    return fewest_runs(difference, lambda runs: difference_spread(variance_a / runs, runs - 1, variance_b / runs, runs - 1))


def fewest_runs(difference: float, spread: Callable[[int], Spread]) -> int | None:
    """The runs, 2 or more, at which a t test finds `difference` in 80 % of studies; `spread` says how well it is known with so many.

    None where the difference is zero, or where more than 10,000 runs would be needed.
    """
    if difference == 0:
        return None

    def enough(runs: int) -> bool:
        return minimum_detectable_effect(*spread(runs)) <= abs(difference)

    low, high = 1, 2  # too few, maybe enough
    while not enough(high):
        low, high = high, high * 2
        if low > MOST_RUNS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high if high <= MOST_RUNS else None
