"""Sparse dictionaries: stored hidden states -> latents, which are neurons again."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from .against_factors import read_factors, sae_disentangle
    from .config import Sweep, read_config, sweep_of
    from .disentanglement import disentangle
    from .encoding import encode
    from .formats.files import export_dictionary, import_dictionaries
    from .recipe import Recipe, recipe_named
    from .stability import latent_stability, sae_stability
    from .sweep import run_sweep
    from .table import sae_table

# Looked up on first use: torch alone takes longer to import than `import otoscope` may.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "against_factors": ["read_factors", "sae_disentangle"],
        "config": ["Sweep", "read_config", "sweep_of"],
        "disentanglement": ["disentangle"],
        "encoding": ["encode"],
        "formats.files": ["export_dictionary", "import_dictionaries"],
        "recipe": ["Recipe", "recipe_named"],
        "stability": ["latent_stability", "sae_stability"],
        "sweep": ["run_sweep"],
        "table": ["sae_table"],
    },
)
