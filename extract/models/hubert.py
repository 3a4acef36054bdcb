"""HuBERT: see `speech` for what its neurons, hidden states and embedding are.

Contents: `load`.
"""

from functools import partial

from .speech import load_as

load = partial(load_as, family="hubert", config_class="HubertConfig", model_class="HubertModel", prefix="hubert.")
