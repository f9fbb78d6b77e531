"""Probes: one file each; test sets that isolate one cue."""
