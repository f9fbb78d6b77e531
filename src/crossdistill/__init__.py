"""crossdistill: distil a vision teacher into a student of another architecture, and say what the student inherited."""

__version__ = "0.1.0"
