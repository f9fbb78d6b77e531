"""crossdistill: distil a vision teacher into a student of another architecture, and say what the student inherited."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossdistill.notebook import Distilled, Evaluation, Preprocessed, distill, evaluate

__all__ = ["Distilled", "Evaluation", "Preprocessed", "__version__", "distill", "evaluate"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What is used from Python is imported when it is first asked for: torch takes seconds, and the command line starts without it."""
    if name not in __all__:
        raise AttributeError(f"module 'crossdistill' has no attribute '{name}'")
    return getattr(import_module("crossdistill.notebook"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
