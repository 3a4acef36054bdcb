"""Published neuron lists: read as their authors' configurations have them, and written so that those run them."""

import pytest
import yaml

from otoscope.analysis.published.neuron_lists import read_published_list, write_published_list
from otoscope.store.neurons import NeuronSet

# The form of the published configurations, with fewer neurons.
CONFIGURATION = """# comments, and settings of the model
audio_repr: ar_m2d.AR_M2D_Steering_Neurons
weight_file: external/m2d/some-checkpoint/checkpoint-300.pth
mean: -7.1
output_layers: [-1]  # List of layers to stack
dur_frames:  # None for no desired number of frames
lr_lineareval: 0.00003

int_gain: 0.0
int_neurons: [ [0, 1], [0, 112], [3, 382],[9, 347], [10, 2663] ]

# Class                | Accuracy   | Diff (%)             | Samples
"""


def test_a_published_configuration(tmp_path):
    (tmp_path / "m2d_abl.yaml").write_text(CONFIGURATION)
    neurons, gain = read_published_list(tmp_path / "m2d_abl.yaml")
    assert neurons.pairs == ((0, 1), (0, 112), (3, 382), (9, 347), (10, 2663))
    assert gain == 0.0
    assert neurons.shifted(1, [3072] * 12).pairs == ((0, 2), (0, 113), (3, 383), (9, 348), (10, 2664))


@pytest.mark.parametrize("gain", [0.0, 0.5, 3])
def test_what_is_written_is_read_by_us_and_by_plain_yaml(tmp_path, gain):
    neurons = NeuronSet(pairs=((5, 7), (0, 3)))
    write_published_list(neurons, gain, tmp_path / "mine.yaml")
    assert read_published_list(tmp_path / "mine.yaml") == (neurons, gain)
    assert yaml.safe_load((tmp_path / "mine.yaml").read_text()) == {"int_gain": gain, "int_neurons": [[0, 3], [5, 7]]}


def test_a_base_gives_all_other_settings(tmp_path):
    base = tmp_path / "m2d.yaml"
    base.write_text(CONFIGURATION.replace("AR_M2D_Steering_Neurons", "AR_M2D"))
    write_published_list(NeuronSet(pairs=((5, 7),)), 0.5, tmp_path / "mine.yaml", base=base)
    written = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    wanted = yaml.safe_load(CONFIGURATION) | {"int_gain": 0.5, "int_neurons": [[5, 7]]}
    assert written == wanted
    assert written["audio_repr"] == "ar_m2d.AR_M2D_Steering_Neurons"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int_gain: 0.0\n", "has int_neurons NoneType"),
        ("int_neurons: [[0, 1]]\n", "int_gain None; expected a list"),
        ("int_gain: 0\nint_neurons: [[0, 1, 2]]\n", r"\[0, 1, 2\] is not a valid neuron"),
        ("int_gain: 0\nint_neurons: [[0, x]]\n", "is not a valid neuron"),
        ("- 1\n", "holds list; expected key: value"),
        ("a: [\n", "is not YAML"),
        ("a: !!python/object/apply:os.getcwd []\n", "is not YAML"),
    ],
)
def test_other_files_raise_and_nothing_runs(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_published_list(tmp_path / "x.yaml")


def test_absent_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*x\.yaml"):
        read_published_list(tmp_path / "x.yaml")
    with pytest.raises(FileNotFoundError, match="no folder"):
        write_published_list(NeuronSet(pairs=()), 0, tmp_path / "no" / "x.yaml")
    with pytest.raises(ValueError, match="gain nan; expected a finite number"):
        write_published_list(NeuronSet(pairs=()), float("nan"), tmp_path / "x.yaml")
