"""Names as the published notebooks write them, and the paper's table against its own arithmetic."""

import numpy as np
import pandas as pd
import pytest

from otoscope.analysis.published import paper


def test_rows_are_the_data_sets_of_the_paper_each_once():
    named = ["cremad:emotion", "cremad:gender", "vocalset:vowel", "vc1:class", "nspitch:class", "cremad:emotion"]
    assert paper.paper_rows(named) == ["cremad:emotion", "vc1:class"]
    assert paper.paper_rows(["t:kind", "t:number"]) == ["t:kind", "t:number"]


def test_official_names():
    assert paper.official_folder("esc50:category", "ssl") == "esc50_analysis"
    assert paper.official_folder("voxceleb1:gender", "sl") == "vc1_vit"
    assert paper.official_folder("cremad:gender", "sl") == "cremad_gender_vit"
    assert paper.official_table("ssl") == "task_level_neuron_statistics_analysis.csv"
    assert paper.official_table("sl") == "task_level_neuron_statistics_vit.csv"
    assert paper.official_figure("cremad:emotion") == "within_task-cremad.pdf"
    assert paper.official_figure("surge:octave", "nsynth:octave") == "cross_task-surge-nspitch.pdf"
    with pytest.raises(ValueError, match="training is 'vit'; expected one of ssl, sl"):
        paper.official_folder("esc50:category", "vit")


def test_a_row_per_labelling_and_two_columns_per_store():
    stats = pd.DataFrame(
        {
            "store": ["ssl", "ssl", "ssl", "sl"],
            "task": ["esc50:category", "gtzan:genre", "average", "gtzan:genre"],
            "neurons_per_category": [38.0, 70.0, 54.0, 48.0],
            "coverage_ratio": [1.0, 0.9, 0.95, 0.7],
        }
    )
    table = paper.paper_table(stats)
    assert table["task"].tolist() == ["esc50:category", "gtzan:genre", "average"]
    assert list(table.columns[1:]) == ["ssl neurons", "ssl coverage", "sl neurons", "sl coverage"]
    np.testing.assert_array_equal(table["ssl neurons"], [38, 70, 54])
    np.testing.assert_allclose(table["ssl coverage"], [1.0, 0.9, 0.95])
    np.testing.assert_array_equal(table["sl neurons"], [np.nan, 48, 48])
    np.testing.assert_array_equal(table["sl coverage"], [np.nan, 0.7, 0.7])
