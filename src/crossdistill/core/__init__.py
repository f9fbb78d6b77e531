"""Types, configuration, records, registry, seeds, store and errors: what every other layer may import."""
