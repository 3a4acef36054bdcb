"""How independent pieces of work run somewhere, and what they report. Knows nothing of audio."""
