"""What a file's own headers say it holds, established without the decoder: one file per family of containers."""
