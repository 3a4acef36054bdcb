"""Benchmarks, one file per question: `python -m benchmarks` runs all, `python -m benchmarks.counting` one.

Goal: every figure that the documentation states can be measured again by one command.
Conventions: each question is a module with `measure(scratch, size)`, the sizes `FULL` and `SMALL`, and `main()`. What
is compared runs in turn within each repetition, and the median of the ratios counts, so that a slow minute of the
machine hits all alike. Results at full size go to `results/<question>.json`; `report.py` makes the table of them.
"""

QUESTIONS = (
    "quickstart", "throughput", "startup", "against_hooks", "counting", "permutations", "contrast", "planted",
    "selection", "encoders", "opening", "commands", "one_neuron", "thresholds", "memory", "ablation",
    "cluster", "object_store", "service", "dictionaries", "dictionary_rows", "disentangle", "grounding", "pairs",
)  # fmt: skip
