"""HTTP: the pages of the explorer and the ablation service, one application."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from .routes import make_app

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"routes": ["make_app"]})
