"""Distilling and evaluating from Python, as in a notebook: plain modules and arrays in, trained modules and figures out.

The work is that of `crossdistill distill` and `crossdistill evaluate`, with their plan, records, tables and page.
"""

from crossdistill.notebook.distilling import distill
from crossdistill.notebook.evaluating import evaluate
from crossdistill.notebook.networks import Preprocessed
from crossdistill.notebook.results import Distilled, Evaluation

__all__ = ["Distilled", "Evaluation", "Preprocessed", "distill", "evaluate"]
