"""Taking a student away: files that load without crossdistill, checked against it, with a card that says what is known."""

from crossdistill.export.formats import Exported, export_student

__all__ = ["Exported", "export_student"]
