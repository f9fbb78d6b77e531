"""Instruments: one file each, a Network and images in, numpy out, one row an image: what the network did inside, not what it answered."""
