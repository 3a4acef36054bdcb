"""WavLM, with its gated relative position bias: see `speech` for what its neurons, hidden states and embedding are.

Contents: `load`.
"""

from functools import partial

from .speech import load_as

load = partial(load_as, family="wavlm", config_class="WavLMConfig", model_class="WavLMModel", prefix="wavlm.")
