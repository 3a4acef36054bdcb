"""wav2vec 2.0: see `speech` for what its neurons, hidden states and embedding are.

Contents: `load`.
"""

from functools import partial

from .speech import load_as

load = partial(
    load_as, family="wav2vec2", config_class="Wav2Vec2Config", model_class="Wav2Vec2Model", prefix="wav2vec2."
)
