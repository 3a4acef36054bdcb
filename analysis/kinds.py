"""The kinds of tables, figures and comparisons, by the names under which they are asked for. Imports nothing heavy."""

TABLES = ("stats", "paper", "overlap", "probability", "aape", "thresholds", "neuron-thresholds", "depth")
THRESHOLD_ENDINGS = (".csv", ".parquet")  # of files of thresholds, one per neuron
OF_RESULTS = ("ablation", "grounding", "swap", "probes", "disentanglement", "families", "entropy")
"""Figures of what a command wrote, in the place of a store."""
FIGURES = ("overlap", "depth", "selectivity", *OF_RESULTS)
COMPARISONS = ("labelling", "layer", "category", "neuron")
SIDES = ("both", "above", "below")
"""On which side of shuffled labels an overlap is evidence."""
SHOWN = ("observed", "ratio", "difference")
"""What a heat map shows of an overlap: itself, or beside what shuffled labels give."""
NULL_ROWS = {"cells": "common_neuron_ratio", "categories": "neurons", "neurons": "aape"}
"""What a table of a null has a row for, and the statistic that it is about."""
STATES = ("audio", "text", "both", "interaction", "construction", "none")
"""What a neuron responds to, by the test of a crossed corpus."""
BLIND = ("audio", "text", "none")
"""What a site may be unable to see, by construction."""
