"""Swaps: whether an answer depends on what some neurons carry of the sound, or of the words."""
