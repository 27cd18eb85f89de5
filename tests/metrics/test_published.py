"""The published figures: well formed, spot checks against the papers' tables, warnings where protocols differ."""

import pytest

from rrg.data.protocols import PROTOCOLS
from rrg.errors import UserError
from rrg.metrics.published_tables import CERTAINTIES, get_published, published
from rrg.metrics.registry import METRICS

EXTERNAL = {"bertscore", "chexbert_observation5_micro_f1", "radgraph_partial"}


def test_entries_are_well_formed():
    for name, entry in published().items():
        assert entry.name == name and entry.system and entry.source and entry.note
        assert entry.certainty in CERTAINTIES and (entry.protocol in PROTOCOLS or entry.certainty == "none")
        assert set(entry.metrics) <= set(METRICS) | EXTERNAL
        assert all(0 <= value <= 1 for value in entry.metrics.values())
        bleu = [entry.metrics[f"bleu_{order}"] for order in range(1, 5) if f"bleu_{order}" in entry.metrics]
        assert bleu == sorted(bleu, reverse=True)


def test_spot_checks():
    assert get_published("published:cmeaa_iu").metrics == {
        "bleu_1": 0.481, "bleu_2": 0.319, "bleu_3": 0.234, "bleu_4": 0.181, "rouge_l": 0.392,
    }  # fmt: skip
    assert get_published("cmeaa_mimic").metrics["observation_macro_f1"] == 0.399
    assert get_published("r2gengpt_mimic_deep").metrics["cider"] == 0.269
    assert get_published("gla_rrg24_findings").metrics["radgraph_partial"] == 0.2413


def test_the_boards_overall_is_the_mean_of_its_five_columns():
    """Recomputed from the row as the board's rank 4 and rank 1 print it."""
    for name, overall in (("gla_rrg24_findings", 31.01), ("csiro_rrg24_findings", 35.56), ("sicar_rrg24_findings", 30.93)):
        values = get_published(name).metrics.values()
        assert 100 * sum(values) / len(values) == pytest.approx(overall, abs=0.011)


def test_warnings():
    entry = get_published("r2gengpt_mimic_deep")
    said = " ".join(entry.warnings("r2gen_mimic"))
    assert "not comparable" in said and "CheXbert" in said and "recalled" in said
    assert not any("not comparable" in line for line in entry.warnings("r2gengpt_release_mimic"))


def test_refusals():
    with pytest.raises(UserError, match="cmeaa_iu"):
        get_published("published:cmea_iu")
    for name in ("unicrossadapter", "alta"):
        with pytest.raises(UserError, match="no figure is known"):
            get_published(name)
