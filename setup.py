"""Builds only where the rooms are linked: setuptools would leave out what is not there, without a word."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).parent / "src"))
import otoscope  # noqa: F401  raises an ImportError that says what to do

setup()
