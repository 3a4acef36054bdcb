"""Changes of a task: staged in memory, locked, written, and undone or gone on with where a writer was killed."""
