"""Trackers, one module each: `start`, `log` and `finish`. A study file names them as the module is called."""
