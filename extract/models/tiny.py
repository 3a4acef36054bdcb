"""The bundled encoders: M2D's architecture, small, with weights that travel with the package.

Goal: the whole method on a laptop, without a download.
Conventions: as in `m2d`; the geometry and the number of heads are in the weight files' metadata.
"""

from pathlib import Path

from . import m2d
from .encoder import Encoder

WEIGHTS = Path(__file__).parent / "weights"


def load(path: str, family: str) -> Encoder:
    """Encoder "tiny-ssl" or "tiny-sl": 80 mels x 112 frames, patches 16 x 16, 4 transformer layers of 384 neurons.

    path: empty, since there is one file of each.
    Raises FileNotFoundError if the package was installed without its weights.
    """
    file = WEIGHTS / f"{family}.safetensors"
    if not file.is_file():
        raise FileNotFoundError(f"the package has no {file.name}; expected the weights in it: install it again")
    return m2d.load(str(file), family)
