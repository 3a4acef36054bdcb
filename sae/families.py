"""Families of voice attributes: what the 88 eGeMAPS functionals are about.

Conventions: the published rules, the first that a name fits: logRelF0-H1-H2 is pitch, F1amplitudeLogRelF0 a formant,
loudnessPeaksPerSec loudness, and slopes of pitch are pitch.
"""

import re

FAMILIES = {
    "formants": r"F1|F2|F3",
    "pitch": r"F0",
    "quality": r"(?i)shimmer|jitter|hnr",
    "loudness": r"(?i)loudness|equivalentsoundlevel",
    "rhythm": r"(?i)voiced",
    "spectral": r"(?i)slope|spectral|alpharatio|hammarberg",
    "mfcc": r"(?i)mfcc",
}
"""By name: what is in those of its factors, in the order in which they are tried."""


def family_of(factor: str) -> str:
    """The family of a factor by its name; "" for one that is none of these."""
    return next((family for family, rule in FAMILIES.items() if re.search(rule, factor)), "")
