"""Linear probes on stored embeddings, their splits and their files."""
