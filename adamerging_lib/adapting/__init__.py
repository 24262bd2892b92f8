"""Adaptive merging of any model: one's own module, checkpoints, heads and batches of data."""
