"""Sources of models: one file each, giving a Network."""
