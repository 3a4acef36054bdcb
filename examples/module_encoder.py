"""An encoder of your own: a function that returns an otoscope Encoder, found as `module:FILE.py:factory`.

    otoscope extract STORE --encoder module:examples/module_encoder.py:build --corpus M.csv --task NAME

The network here is small and its weights are random but fixed: put your own in its place. It takes log-mel
spectrograms through two convolutions over time and one linear map, 48, 96 and 160 neurons wide.
"""

import torch
from torch import Tensor, nn

from otoscope.extract.models.encoder import Encoder
from otoscope.extract.models.log_mel import LogMel


class SmallNet(nn.Module):
    """Log-mel spectrograms (clip, mel, frame) to features (clip, frame, 160)."""

    def __init__(self, n_mels: int = 40) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(n_mels, 48, kernel_size=5, padding=2)
        self.act1 = nn.GELU()
        self.conv2 = nn.Conv1d(48, 96, kernel_size=5, padding=2)
        self.act2 = nn.GELU()
        self.linear = nn.Linear(96, 160)
        self.act3 = nn.GELU()

    def forward(self, log_mel: Tensor) -> Tensor:
        sound = log_mel / 8 + 1  # about -1 for silence to 1 for a loud tone
        sound = self.act1(self.conv1(sound).transpose(1, 2))  # a site's neurons come last: (clip, frame, 48)
        sound = self.act2(self.conv2(sound.transpose(1, 2)).transpose(1, 2))
        return self.act3(self.linear(sound))


def build() -> Encoder:
    """What otoscope calls: the network, its sites and its front end."""
    front_end = LogMel(16_000, n_mels=40)
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
        torch.manual_seed(0)
        network = SmallNet(n_mels=40)
    # With weights of your own: network.load_state_dict(safetensors.torch.load_file("weights.safetensors"))
    return Encoder(
        module=network.eval(),
        sample_rate=16_000,
        sites=["act*"],
        prepare=front_end,
        input_length=front_end.n_frames,
        min_samples=front_end.min_samples,
        front_end=front_end.settings(),
    )
