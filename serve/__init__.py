"""HTTP: the ablation service."""
