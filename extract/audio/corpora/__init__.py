"""Data sets: from what is downloaded, or made, to a manifest."""
