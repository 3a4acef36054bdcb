"""The bundled encoders: M2D's architecture, small, with weights that travel with the package.

Goal: the whole method on a laptop, without a download.
Conventions: as in `m2d`; the geometry and the number of heads are in the weight files' metadata.
Contents: `load`.
"""

from pathlib import Path

from . import m2d
from .encoder import Encoder

WEIGHTS = Path(__file__).parent / "weights"


def load(name: str) -> Encoder:
    """Encoder "tiny-ssl" or "tiny-sl": 80 mels x 112 frames, patches 16 x 16, 4 blocks of 384 neurons.

    Raises FileNotFoundError if the package was installed without its weights.
    """
    file = WEIGHTS / f"{name}.safetensors"
    if not file.is_file():
        raise FileNotFoundError(f"the package has no {file.name}; expected the weights in it: install it again")
    return m2d.load(str(file), name=name)
