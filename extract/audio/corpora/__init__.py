"""Data sets: from what is downloaded, or made, to a manifest."""

DATA_SETS = ("esc50", "gise51", "voxforge", "voxceleb1", "cremad", "gtzan", "surge", "nsynth", "vocalset")
SUBSETS = ("all", "paper")
