"""MERT, from its published files and without the code that its authors ship beside them.

Goal: the published configurations describe HuBERT at 24 kHz, which transformers has; those that need the authors' own
layers are refused by name.
Conventions: as in `speech`.
Contents: `load`.
"""

from .encoder import Encoder
from .hf_files import open_folder
from .speech import load_as


def load(path: str) -> Encoder:
    """Encoder from a folder of MERT.

    Raises ValueError for a configuration that HuBERT's class cannot express (constant-Q input, deep norm), and what
    `speech.load_as` raises.
    """
    config = dict(open_folder(path, "mert").config)
    beyond = [name for name in ("feature_extractor_cqt", "deepnorm") if config.get(name)]
    if beyond:
        raise ValueError(
            f"{path}/config.json switches on {' and '.join(beyond)}, layers that only the code shipped with that model "
            "has, and it is never run; expected a MERT without them, as MERT-v1-95M: wrap this one in a module: factory"
        )
    config["model_type"] = "hubert"
    return load_as(
        path, family="mert", config_class="HubertConfig", model_class="HubertModel", prefix="mert_model.", config=config
    )
