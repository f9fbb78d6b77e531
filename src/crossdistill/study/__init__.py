"""Plan a study and execute it."""
