"""Sources of images: one file each, turned into an ImageSet that is decoded once."""
