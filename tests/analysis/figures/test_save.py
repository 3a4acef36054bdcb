"""Figures' files come out whole, uncut and the same every time."""

import subprocess
import sys
from xml.etree import ElementTree

import pytest
from matplotlib.image import imread

from otoscope.analysis.figures.neurons import depth_figure
from otoscope.analysis.figures.overlap import overlap_figure
from otoscope.analysis.figures.save import save_figure

from .test_neurons import make_depth
from .test_overlap import make_ratio


@pytest.mark.parametrize(("ending", "start"), [("pdf", b"%PDF"), ("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_same_figure_gives_the_same_bytes(tmp_path, ending, start):
    for name in ("one", "two"):
        save_figure(overlap_figure([("猫", make_ratio(["猫", "b"], ["a", "b"]))]), tmp_path / f"{name}.{ending}")
    first, second = (tmp_path / f"{name}.{ending}" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(start)
    assert b"Date" not in first.read_bytes()
    assert b"dc:date" not in first.read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_text_stays_text(tmp_path):
    """In SVG as it is read, in PDF in fonts that editors know."""
    figure = overlap_figure([("a store", make_ratio(["dog & cat", "hen"], ["cow"]))], "rule lape; 12 clips")
    for ending in ("svg", "pdf"):
        save_figure(figure, tmp_path / f"f.{ending}")
    texts = ["".join(text.itertext()) for text in ElementTree.parse(tmp_path / "f.svg").iter() if "text" in text.tag]
    assert {"a store", "dog & cat", "hen", "cow", "rule lape; 12 clips"} <= set(texts)
    assert b"/FontFile2" in (tmp_path / "f.pdf").read_bytes()  # TrueType, whole letters
    assert b"/Type3" not in (tmp_path / "f.pdf").read_bytes()


def test_other_endings_and_absent_folders_raise(tmp_path):
    figure = depth_figure([("ssl", make_depth(2))])
    with pytest.raises(ValueError, match=r"'f.jpg'; expected a name ending in .pdf, .png, .svg"):
        save_figure(figure, tmp_path / "f.jpg")
    with pytest.raises(FileNotFoundError, match=r"no folder .*create it"):
        save_figure(figure, tmp_path / "absent" / "f.pdf")
    assert not list(tmp_path.iterdir())


def test_pyplot_and_its_global_state_are_left_alone():
    code = "import sys, otoscope.analysis.figures.overlap; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_cut_at_the_edge(tmp_path):
    """Where names are longer below than above, the layout alone leaves some of them cut."""
    names = [f"{i} {'of long name' * (i % 3)}" for i in range(51)]
    ratio = make_ratio(names[:8], names)
    save_figure(overlap_figure([("SSL", ratio), ("SL", ratio)]), tmp_path / "wide.png")
    image = imread(tmp_path / "wide.png")
    for edge in (image[:3], image[-3:], image[:, :3], image[:, -3:]):
        assert (edge == 1).all()  # white
