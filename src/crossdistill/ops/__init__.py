"""Shared torch pieces: the Network wrapper, taps, layouts, modes."""
