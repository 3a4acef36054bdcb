"""Audio in, activations out: corpus, encoder, tap, summaries, blocks."""
