"""data2vec-audio: see `speech` for what its neurons, hidden states and embedding are.

Contents: `load`.
"""

from functools import partial

from .speech import load_as

load = partial(
    load_as,
    family="data2vec",
    config_class="Data2VecAudioConfig",
    model_class="Data2VecAudioModel",
    prefix="data2vec_audio.",
)
