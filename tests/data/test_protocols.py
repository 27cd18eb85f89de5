"""Published cleaning functions against the golden vectors, and the registry of protocols."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrg.data.cleaning import CLEANINGS
from rrg.data.protocols import (
    PROTOCOLS,
    clean_iu,
    clean_mimic,
    clean_mimic_colon,
    clean_organ_iu,
    clean_organ_mimic,
    get_protocol,
    section_text,
)
from rrg.data.study import Sections
from rrg.errors import UserError

LISTED = "1. No acute disease. 2. Stable 1.5 cm nodule (calcified)."
HYPHENS = "The heart size is normal. No x-ray evidence of T6-T7 fracture; lungs are clear."
MESSY = "FINDINGS: PA & lateral views.\n\n Comparison: ___ at 10:30. No  effusion... ET tube @ 3 cm <above> carina."

GOLDEN = [
    (clean, LISTED, "no acute disease . stable 15 cm nodule calcified .") for clean in (clean_iu, clean_mimic, clean_mimic_colon)
]
GOLDEN += [
    (clean, HYPHENS, "the heart size is normal . no x-ray evidence of t6-t7 fracture lungs are clear .")
    for clean in (clean_iu, clean_mimic, clean_mimic_colon)
]
GOLDEN += [
    (
        clean_iu,
        MESSY,
        "findings pa  lateral views\n\n comparison  at 1030 . no  effusion . et tube  3 cm above carina .",
    ),
    (clean_mimic, MESSY, "findings pa  lateral views . comparison  at 1030 . no effusion . et tube  3 cm above carina ."),
    (
        clean_mimic_colon,
        MESSY,
        "findings : pa  lateral views . comparison :  at 10 :30 . no effusion . et tube @ 3 cm <above> carina .",
    ),
]


@pytest.mark.parametrize(("clean", "raw", "expected"), GOLDEN)
def test_golden_vectors(clean, raw, expected):
    assert clean(raw) == expected


def test_empty_sentences_survive_except_in_organs_variant():
    assert clean_iu("No effusion. . Clear.") == "no effusion .  . clear ."
    assert clean_organ_iu("No effusion. . Clear.") == "no effusion . clear ."
    assert clean_iu("") == " ."
    assert clean_organ_iu("") == ""
    assert clean_organ_mimic("A ___.\n B.") == "a . b ."


@given(st.text())
def test_class_is_the_published_regular_expression(text):
    deleted = re.sub(r"[.,?;*!%^&_+():-\[\]{}]", "", text.lower())
    assert "".join(piece for piece in clean_iu_characters(text)) == deleted


def clean_iu_characters(text):
    from rrg.data import cleaning

    return text.lower().translate(cleaning._CLASS)


@given(st.text())
def test_every_cleaning_takes_any_text(text):
    for clean in CLEANINGS.values():
        assert isinstance(clean(text), str)


def test_list_numbers_up_to_five_go():
    assert clean_iu("1. A. 2. B. 3. C. 4. D. 5. E. 6. F.") == "a . b . c . d . e . 6 . f ."


def test_registry_names_match_and_cleanings_exist():
    for name, protocol in PROTOCOLS.items():
        assert name == protocol.name
        assert protocol.cleaning in CLEANINGS
        assert get_protocol(name) is protocol


def test_unknown_protocol_names_the_nearest():
    with pytest.raises(UserError, match="r2gen_mimic"):
        get_protocol("r2gen_mimc")
    with pytest.raises(UserError, match="not known"):
        section_text(Sections(), "finding")


SECTIONS = Sections(findings="Lungs  are\n Clear.", impression="Normal.")


def test_findings_keeps_case_and_does_not_cut():
    protocol = get_protocol("findings")
    assert protocol.reference(SECTIONS) == "Lungs are Clear."
    assert protocol.truncate_tokens is None and protocol.max_words is None
    assert get_protocol("impression").reference(SECTIONS) == "Normal."


def test_r2gen_cleans_both_sides():
    protocol = get_protocol("r2gen_mimic")
    assert protocol.reference(SECTIONS) == "lungs are clear ."
    assert protocol.generated("Lungs are clear.") == "lungs are clear ."
    assert protocol.reference_text("Lungs  are\n Clear.") == protocol.reference(SECTIONS)


def test_r2gengpt_release_says_that_it_truncates():
    for name, tokens in (("r2gengpt_release_iu", 60), ("r2gengpt_release_mimic", 100)):
        protocol = get_protocol(name)
        assert protocol.truncate_tokens == tokens
        assert "truncate" in protocol.notes
        assert protocol.generated(" Raw. Text ") == "Raw. Text"
    assert get_protocol("r2gengpt_release_mimic").reference(SECTIONS) == "lungs are clear . normal ."


def test_an_absent_section_stays_empty():
    assert get_protocol("r2gen_iu").reference(Sections()) == ""
    assert get_protocol("findings").reference(Sections(impression="x")) == ""


def test_a_family_names_its_members():
    with pytest.raises(UserError, match="r2gen_iu or r2gen_mimic"):
        get_protocol("r2gen")
    with pytest.raises(UserError, match="rrg24_findings or rrg24_impression"):
        get_protocol("rrg24")


def test_every_protocol_names_metrics_that_exist_and_sections():
    from rrg.metrics.external.catalogue import METRICS as EXTERNAL
    from rrg.metrics.registry import METRICS

    for protocol in PROTOCOLS.values():
        assert set(protocol.metrics) <= set(METRICS) and set(protocol.external) <= set(EXTERNAL)
        assert protocol.uncertain == "negative" and protocol.notes
    assert get_protocol("rrg24_impression").reference(SECTIONS) == "Normal."
    assert get_protocol("llava_rad").generated("Lungs  Clear.") == "Lungs Clear."
    assert get_protocol("rexrank").reference(SECTIONS) == "lungs are clear . normal ."
