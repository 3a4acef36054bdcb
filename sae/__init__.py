"""Sparse dictionaries: stored hidden states -> latents, which are neurons again."""
