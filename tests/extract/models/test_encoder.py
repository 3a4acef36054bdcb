"""The Encoder object: what it finds out by itself, its defaults, and the registry of names."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from otoscope.extract.models.encoder import (
    Encoder,
    Site,
    as_frames,
    mean_over_frames,
    spans_of_all_bands,
    weights_digest,
)
from otoscope.extract.models.registry import load_encoder
from otoscope.extract.plan import origin_of


class Hop(nn.Module):
    """Frames of 100 samples: (clip, sample) -> (clip, frame, 4), through sites of unequal width."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(100, 6), nn.Linear(6, 4)])
        self.head = nn.Linear(4, 2)

    def forward(self, waveforms: Tensor) -> Tensor:
        frames = waveforms.unfold(1, 100, 100)
        for layer in self.layers:
            frames = layer(frames)
        return frames


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(module=Hop(), sample_rate=1000, sites=["layers.*"], transformer_layers=["layers.*"])


def test_anatomy_is_found_by_a_pass(encoder: Encoder) -> None:
    anatomy = encoder.anatomy()
    assert anatomy.sites == (Site(name="layers.0", width=6), Site(name="layers.1", width=4))
    assert (anatomy.embedding, anatomy.hidden) == (4, 6)


def test_widths_of_hidden_states_are_found_by_a_pass(encoder: Encoder) -> None:
    assert encoder.hidden_widths() == (100, 6, 4)


class ByName(Hop):
    """Its first layer takes nothing by position."""

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.layers[0](input=waveforms.unfold(1, 100, 100))


def test_a_first_layer_may_be_given_its_input_by_name() -> None:
    by_name = Encoder(module=ByName(), sample_rate=1000, sites=["layers.0"], transformer_layers=["layers.0"])
    assert by_name.hidden_widths() == (100, 6)


class FrameFirst(Hop):
    """(frame, clip, width) inside, as sequences come in some toolkits."""

    def forward(self, waveforms: Tensor) -> Tensor:
        return super().forward(waveforms).transpose(0, 1)

    def __init__(self) -> None:
        super().__init__()
        for layer in self.layers:
            layer.register_forward_pre_hook(lambda _, x: (x[0].transpose(0, 1),) if len(x[0]) == 1 else None)


def test_frames_before_clips_are_refused_with_the_remedy() -> None:
    given: dict[str, Any] = {"module": FrameFirst(), "sample_rate": 1000, "sites": ["layers.*"]}
    encoder = Encoder(**given, embed=lambda y: y.mean(dim=0)[None, 0])
    with pytest.raises(
        ValueError, match=r"site layers\.0 gives \(10, 1, 6\) for one clip; .*the clip first.*`neurons=`"
    ):
        encoder.anatomy()
    turned = replace(encoder, neurons=lambda y: y.transpose(0, 1), transformer_layers=["layers.*"])
    assert [site.width for site in turned.anatomy().sites] == [6, 4]
    with pytest.raises(ValueError, match=r"hidden state at layers\.0 is \(10, 1, 100\) for one clip; .*the clip first"):
        turned.hidden_widths()


class AsDict(nn.Module):
    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        return {"last_hidden_state": 2 * frames, "other": frames[:, :1]}


def test_a_layer_may_give_a_dict_that_begins_with_its_hidden_state() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = AsDict(), nn.ReLU()

        def forward(self, waveforms: Tensor) -> Tensor:
            return self.act(self.layer(waveforms.unfold(1, 100, 100))["last_hidden_state"])

    encoder = Encoder(module=Model(), sample_rate=1000, sites=["act"], transformer_layers=["layer"])
    assert encoder.hidden_widths() == (100, 100)
    assert encoder.anatomy().hidden == 100


class Followed(nn.Module):
    """A linear map whose output the next module changes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(100, 8), nn.ReLU(inplace=True)

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.act(self.linear(waveforms.unfold(1, 100, 100)))


def test_the_check_holds_what_a_site_gave_before_it_was_changed() -> None:
    encoder = Encoder(module=Followed(), sample_rate=1000, sites=["linear", "act"])
    linear = encoder.module.linear  # type: ignore[union-attr]
    frames = encoder.fixed_sound().unfold(1, 100, 100)[0] @ linear.weight.T + linear.bias
    check = encoder.anatomy().check
    np.testing.assert_allclose(check[8:16], frames.mean(0).detach(), atol=1e-5)
    np.testing.assert_allclose(check[16:], frames.clamp(min=0).mean(0).detach(), atol=1e-5)
    assert (check[8:16] < 0).any()


def test_a_function_that_changes_what_the_model_goes_on_with_is_refused() -> None:
    encoder = Encoder(module=Hop(), sample_rate=1000, sites=["layers.0"], neurons=torch.relu_)
    with pytest.raises(ValueError, match=r"`neurons` changes the output of site layers\.0, .*none that ends in _"):
        encoder.anatomy()


def compiled(module: nn.Module) -> Any:
    return torch.compile(module, backend="eager")


@pytest.mark.parametrize("wrap", [compiled, nn.DataParallel, lambda module: compiled(nn.DataParallel(module))])
def test_a_model_is_taken_out_of_what_was_put_around_it(encoder: Encoder, wrap: Any) -> None:
    wrapped = replace(encoder, module=wrap(encoder.module))
    assert wrapped.module is encoder.module
    np.testing.assert_array_equal(wrapped.anatomy().check, encoder.anatomy().check)


class OverTime(nn.Module):
    """A convolution of samples in tens: (clip, channel, frame)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 5, 10, 10)

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.conv(waveforms[:, None]).transpose(1, 2)


def test_channels_before_frames_are_refused_though_all_clips_are_a_second_long() -> None:
    encoder = Encoder(module=OverTime(), sample_rate=1000, sites=["conv"])
    with pytest.raises(
        ValueError, match=r"site conv shows 100 neurons of a sound and 200 of one twice as long; .*transpose"
    ):
        origin_of(encoder, "audio")
    timed = replace(encoder, frame_spans=lambda n: spans_of_all_bands(np.arange(n // 10), np.arange(n // 10), 1000))
    with pytest.raises(ValueError, match="site conv shows 100 neurons of a sound and 200"):
        origin_of(timed, "audio")
    turned = replace(encoder, neurons=lambda y: y.transpose(1, 2))
    assert origin_of(turned, "audio").identity.sites == (("conv", 5),)
    assert turned.anatomy().uneditable == {}


def test_a_model_of_one_length_alone_is_taken_as_it_is() -> None:
    fixed = nn.Sequential(nn.Linear(1000, 7), nn.Unflatten(1, (1, 7)))
    encoder = Encoder(module=fixed, sample_rate=1000, sites=["0"])
    assert origin_of(encoder, "audio").identity.sites == (("0", 7),)


class Recurrent(nn.Module):
    """An LSTM, whose output is a tuple, with and without a part behind it that gives the neurons alone."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(100, 7, batch_first=True), nn.Identity()

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.out(self.lstm(waveforms.unfold(1, 100, 100))[0])


def test_sites_that_cannot_be_edited_are_known_by_a_pass() -> None:
    given: dict[str, Any] = {"module": Recurrent(), "sample_rate": 1000}
    first = Encoder(**given, sites=["lstm"], neurons=lambda pair: pair[0])
    assert list(first.anatomy().uneditable) == ["lstm"]
    assert "torch.nn.Identity()" in first.anatomy().uneditable["lstm"]
    assert Encoder(**given, sites=["out"]).anatomy().uneditable == {}
    computed = Encoder(**given, sites=["out"], neurons=lambda y: y.abs())
    assert "makes new values" in computed.anatomy().uneditable["out"]


def test_the_embedding_is_the_mean_over_frames(encoder: Encoder) -> None:
    waveforms = torch.randn(3, 450)
    plain = (waveforms[:, :400].reshape(3, 4, 100) @ encoder.module.layers[0].weight.T).mean(1)
    plain = (plain + encoder.module.layers[0].bias) @ encoder.module.layers[1].weight.T
    torch.testing.assert_close(encoder(waveforms), plain + encoder.module.layers[1].bias)


def test_frames_divide_the_input_evenly(encoder: Encoder) -> None:
    spans = encoder.spans(400)
    np.testing.assert_allclose(spans, [[0, 0.1, 0, 500], [0.1, 0.2, 0, 500], [0.2, 0.3, 0, 500], [0.3, 0.4, 0, 500]])


def test_a_site_that_never_fires_is_named(encoder: Encoder) -> None:
    never = Encoder(module=encoder.module, sample_rate=1000, sites=["layers.0", "head"])
    with pytest.raises(LookupError, match="no activation seen at head"):
        never.anatomy()


def test_a_pattern_without_a_match_is_named(encoder: Encoder) -> None:
    with pytest.raises(LookupError, match=r"'blocks\.\*' matches none"):
        Encoder(module=encoder.module, sample_rate=1000, sites=["blocks.*"]).anatomy()


def test_an_embedding_must_be_one_vector_per_clip(encoder: Encoder) -> None:
    flat = Encoder(module=encoder.module, sample_rate=1000, sites=["layers.*"], embed=lambda output: output)
    with pytest.raises(ValueError, match=r"`embed` gave \(1, 10, 4\) for one clip; expected a tensor \(1, width\)"):
        flat.anatomy()


@pytest.mark.parametrize("output", [torch.zeros(2, 3, 4, 5), torch.zeros(3), (torch.zeros(2, 3),), None])
def test_other_site_outputs_need_a_function(output: Any) -> None:
    with pytest.raises(ValueError, match=r"expected a tensor \(clip, frame, neuron\).*give the encoder `neurons=`"):
        as_frames(output)


def test_one_vector_per_clip_is_one_frame() -> None:
    assert torch.equal(as_frames(torch.ones(2, 3)), torch.ones(2, 1, 3))


def test_a_site_that_runs_twice_needs_spans() -> None:
    layer = nn.Linear(10, 10)
    twice = Encoder(module=nn.Sequential(nn.Unflatten(1, (-1, 10)), layer, layer), sample_rate=100, sites=["1"])
    with pytest.raises(ValueError, match=r"site 1 ran 2 times in one pass.*give the encoder `frame_spans=`"):
        twice.spans(100)


def test_to_moves_module_and_front_end_and_stops_training() -> None:
    encoder = Encoder(module=Hop().train(), prepare=nn.Sequential(nn.Dropout()).train(), sample_rate=10, sites=["head"])
    moved = encoder.to("cpu")
    assert moved is encoder
    assert not moved.module.training
    assert isinstance(moved.prepare, nn.Module)
    assert not moved.prepare.training


def test_the_digest_tells_names_dtypes_shapes_and_values_apart() -> None:
    def digest(dtype: torch.dtype = torch.float32, **tensors: list[Any]) -> str:
        module = nn.Module()
        for name, values in tensors.items():
            module.register_buffer(name, torch.tensor(values, dtype=dtype))
        return weights_digest(module)

    same = [digest(a=[1, 2], b=[3]), digest(b=[3], a=[1, 2])]
    others = [
        digest(a=[1, 2], c=[3]),
        digest(a=[[1, 2]], b=[3]),
        digest(a=[1, 2], b=[4]),
        digest(a=[1], b=[2, 3]),
    ]
    others.append(digest(torch.float64, a=[1, 2], b=[3]))
    assert same[0] == same[1]
    assert len({same[0], *others}) == 1 + len(others)


def test_the_digest_ignores_what_is_not_saved() -> None:
    module = nn.Linear(2, 2)
    before = weights_digest(module)
    module.register_buffer("scratch", torch.ones(3), persistent=False)
    assert weights_digest(module) == before


@pytest.mark.parametrize("spec", ["", "tiny", "tiny-ssl:x", "m2d", "m2d:", "hubert", "beats:x", "module", "M2D:x"])
def test_unknown_names_are_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"expected one of m2d:\.\.\., .*module:\.\.\., tiny-ssl, tiny-sl"):
        load_encoder(spec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_rate": "16k"}, "sample_rate is '16k'; expected a whole number of at least 1"),
        ({"sample_rate": 16000.0}, "sample_rate is 16000.0; expected a whole number"),
        ({"sample_rate": 10**9}, "sample_rate is 1000000000 Hz; expected at most 1000000"),
        ({"min_samples": 10**7}, "min_samples is 10000000 at 1000 Hz; expected at most 600 s"),
        ({"sites": "layers.*"}, r"sites is 'layers.\*'; expected a list of names or patterns"),
        ({"module": len}, "module is builtin_function_or_method; expected a torch.nn.Module"),
    ],
)
def test_what_cannot_be_an_encoder_is_refused_as_it_is_made(
    encoder: Encoder, changes: dict[str, Any], message: str
) -> None:
    given = {"module": encoder.module, "sample_rate": 1000, "sites": ["layers.*"], **changes}
    with pytest.raises(ValueError, match=message):
        Encoder(**given)
    assert origin_of(replace(encoder, sample_rate=np.int64(1000)), "audio").identity.front_end["sample_rate"] == 1000


def failing(error: Exception) -> Any:
    def fail(_: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prepare": failing(TypeError("no"))}, r"failed on a second of sound \(TypeError: no\); expected a module"),
        ({"embed": failing(KeyError("last"))}, r"failed on a second of sound \(KeyError: last\)"),
        ({"prepare": failing(OSError("no file"))}, r"failed on a second of sound \(OSError: no file\)"),
        ({"prepare": lambda x: x.numpy()}, r"failed on a second of sound \(\w+Error: "),
        ({"embed": lambda x: x.mean(dim=1).numpy()}, "`embed` gave ndarray for one clip; expected a tensor"),
        ({"embed": lambda x: mean_over_frames((x, 1))}, "the module gave tuple; .* give the encoder `embed=`"),
        ({"frame_spans": lambda n: [0, 1]}, r"`frame_spans` gave \(2,\) for 1000 samples; expected \(frame, 4\)"),
    ],
)
def test_what_an_encoder_s_own_code_does_wrong_is_told_in_one_line(
    encoder: Encoder, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        origin_of(replace(encoder, **changes), "audio")
    assert "\n" not in str(raised.value)


def test_weights_that_are_no_numbers_are_refused(encoder: Encoder) -> None:
    with torch.no_grad():
        encoder.module.layers[1].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"has weights that are not numbers \(NaN\), the first in layers.1.weight"):
        origin_of(encoder, "audio")
