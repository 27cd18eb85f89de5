"""Label providers: tables by column name, rules on sections, and mistakes in tables."""

import gzip

import pytest

from rrg.data.study import OBSERVATIONS, Sections, Study
from rrg.errors import UserError
from rrg.observations.providers import CsvLabels, LabelProvider, RuleLabels


def study(name="s1", **sections):
    return Study(id=name, patient="p1", split="train", sections=Sections(**sections))


def table(tmp_path, text, name="labels.csv"):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def test_rules_read_the_section_asked_for():
    both = study(findings="No effusion.", impression="Pneumonia.")
    assert RuleLabels().labels(both) == {"No Finding": 1, "Pleural Effusion": 0}
    assert RuleLabels("impression").labels(both) == {"Pneumonia": 1}
    assert RuleLabels("report").labels(both) == {"Pleural Effusion": 0, "Pneumonia": 1}
    assert RuleLabels("impression").labels(study(findings="Pneumonia.")) == {}
    with pytest.raises(UserError, match="findings"):
        RuleLabels("finding")


def test_mimic_table_by_name_and_bare_number(tmp_path):
    path = table(tmp_path, "subject_id,study_id,Pleural Effusion,Edema\n10,50,1.0,\n10,51,-1.0,0.0\n", "chexpert.csv.gz")
    labels: LabelProvider = CsvLabels(path)
    assert labels.labels(study("s50")) == {"Pleural Effusion": 1}
    assert labels.labels(study("s51")) == {"Pleural Effusion": -1, "Edema": 0}


def test_organ_table(tags_path):
    labels = CsvLabels(tags_path)
    assert set(labels.observations) == set(OBSERVATIONS) and len(labels) > 2000
    assert labels.labels(study("CXR2384_IM-0942"))["Lung Opacity"] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Id,Edema\na,2.0\n", ["line 2", "Edema", "no label"]),
        ("Id,Edema\na,x\n", ["line 2", "Edema"]),
        ("Id,Edema\na,1\na,0\n", ["line 3", "second row"]),
        ("Id,Edema\n,1\n", ["line 2", "no study id"]),
        ("name,Edema\na,1\n", ["not a label table"]),
        ("Id,Oedema\na,1\n", ["not a label table"]),
        ("", ["not a label table"]),
    ],
)
def test_damaged_tables(tmp_path, text, words):
    with pytest.raises(UserError) as error:
        CsvLabels(table(tmp_path, text))
    assert all(word in str(error.value) for word in words)


def test_missing_table_and_missing_study(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        CsvLabels(tmp_path / "none.csv")
    with pytest.raises(UserError, match="damaged"):
        CsvLabels(table(tmp_path, "x").rename(tmp_path / "broken.csv.gz"))
    with pytest.raises(UserError, match="no row for study s2"):
        CsvLabels(table(tmp_path, "Id,Edema\ns1,1\n")).labels(study("s2"))
