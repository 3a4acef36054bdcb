"""Sparse dictionaries: stored hidden states -> latents, which are neurons again."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from .against_factors import read_factors, sae_disentangle
    from .compare import compare_units
    from .config import Sweep, read_config, sweep_of
    from .disentanglement import disentangle
    from .encoding import encode
    from .factors import factors_of
    from .formats.files import export_dictionary, import_dictionaries
    from .labelled import find_labelled
    from .probes import probe_states
    from .recipe import Recipe, recipe_named
    from .stability import latent_stability, sae_stability
    from .stored_latents import find_latents, read_saes
    from .sweep import run_sweep
    from .table import sae_table

# Looked up on first use: torch alone takes longer to import than `import otoscope` may.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "compare": ["compare_units"],
        "against_factors": ["read_factors", "sae_disentangle"],
        "config": ["Sweep", "read_config", "sweep_of"],
        "disentanglement": ["disentangle"],
        "encoding": ["encode"],
        "factors": ["factors_of"],
        "formats.files": ["export_dictionary", "import_dictionaries"],
        "labelled": ["find_labelled"],
        "probes": ["probe_states"],
        "recipe": ["Recipe", "recipe_named"],
        "stored_latents": ["find_latents", "read_saes"],
        "stability": ["latent_stability", "sae_stability"],
        "sweep": ["run_sweep"],
        "table": ["sae_table"],
    },
)
