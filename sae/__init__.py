"""Sparse dictionaries: stored hidden states -> latents, which are neurons again."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from .config import Sweep, read_config, sweep_of
    from .encoding import encode
    from .factors import factors_of
    from .formats.files import export_dictionary, import_dictionaries
    from .recipe import Recipe, recipe_named
    from .sweep import run_sweep
    from .table import sae_table

# Looked up on first use: torch alone takes longer to import than `import otoscope` may.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["Sweep", "read_config", "sweep_of"],
        "encoding": ["encode"],
        "factors": ["factors_of"],
        "formats.files": ["export_dictionary", "import_dictionaries"],
        "recipe": ["Recipe", "recipe_named"],
        "sweep": ["run_sweep"],
        "table": ["sae_table"],
    },
)
