"""SAEs of other libraries: what each keeps in its files, and what of that is a Dictionary exactly."""

LIBRARIES = ("saelens", "sparsify", "dictionary_learning", "published")
