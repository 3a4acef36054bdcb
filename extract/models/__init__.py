"""Encoders by family, one adapter per file: `load(rest of the name) -> Encoder`."""
