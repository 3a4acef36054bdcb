"""What is on disk: the format, its writer, its reader, its verifier."""
