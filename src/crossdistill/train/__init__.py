"""Training: the loop, the objective contract, augmentation, checkpoints."""
