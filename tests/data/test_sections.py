"""The report parser on reports as MIMIC-CXR writes them, and on whatever else a string can be."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrg.data.headings import classify
from rrg.data.sections import ParsedReport, parse_report
from rrg.data.study import Sections, Study

SHARED = Path(os.environ.get("RRG_SHARED", Path(__file__).resolve().parents[2].parent / "shared"))

STANDARD = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)
 
 INDICATION:  History: ___F with shortness of breath  // r/o pneumonia
 
 TECHNIQUE:  Chest PA and lateral
 
 COMPARISON:  ___
 
 FINDINGS: 
 
 The cardiac, mediastinal and hilar contours are normal. Lungs are
 clear.
 
 IMPRESSION: 
 
 No acute cardiopulmonary abnormality.
"""  # noqa: W291, W293


def parse(text: str) -> Sections:
    return parse_report(text).sections


def test_standard_report():
    report = parse_report(STANDARD)
    assert report == ParsedReport(
        Sections(
            findings="The cardiac, mediastinal and hilar contours are normal. Lungs are\n clear.",
            impression="No acute cardiopulmonary abnormality.",
            indication="History: ___F with shortness of breath  // r/o pneumonia",
            comparison="___",
        ),
        rule="findings",
        unmarked=False,
    )


def test_newlines_of_other_systems_and_odd_characters_change_nothing():
    for newline in ("\r\n", "\r", "\x0b", "\x85", "\u2028"):
        assert parse(STANDARD.replace("\n", newline)) == parse(STANDARD)
    assert parse("\ufeff" + STANDARD.replace(" FINDINGS", "\u00a0FINDINGS").replace("clear", "cl\x00ear")) == parse(STANDARD)


def test_headings_inside_one_line():
    text = "FINAL REPORT HISTORY: Cough. COMPARISON: None. TECHNIQUE: PA. FINDINGS: Lungs clear. IMPRESSION: Normal."
    assert parse(text) == Sections("Lungs clear.", "Normal.", "Cough.", "None.")
    mixed = "Clinical history: Cough. Comparison: None. Technique: PA. Findings: Lungs clear. Impression: Normal."
    assert parse(mixed) == Sections("Lungs clear.", "Normal.", "Cough.", "None.")


@pytest.mark.parametrize(
    "text",
    [
        "FINDINGS: Lungs are clear.\nIMPRESSION: Normal.",
        "FINDINGS The lungs are clear.\nIMPRESSION\nNormal.",
        "Findings:\nLungs are clear.\n\nImpression:\nNormal.",
        "findings: lungs are clear.\nimpression: normal.",
        "FINDGINS: Lungs are clear.\nIMPRESION: Normal.",
        "FINDINGS:Lungs are clear.\nCONCLUSION:1. Normal.",
        "RADIOGRAPHIC FINDINGS: Lungs are clear.\nCONCLUSIONS: Normal.",
    ],
)
def test_ways_to_write_a_heading(text):
    sections = parse(text)
    assert "clear" in sections.findings and "ormal" not in sections.findings
    assert "ormal" in sections.impression


def test_text_of_other_headings_never_reaches_the_findings():
    leaks = (
        "TECHNIQUE",
        "EXAMINATION",
        "TYPE OF EXAMINATION",
        "PROCEDURE",
        "NOTIFICATION",
        "RECOMMENDATION(S)",
        "RADIATION DOSE",
    )
    leaks += ("ADDENDUM", "ATTENDING", "HISTORY", "CLINICAL INFORMATION", "REASON FOR EXAM", "COMPARISON FILMS", "CONTRAST")
    for leak in leaks:
        sections = parse(
            f"{leak}: secret words here.\nFINDINGS: Lungs are clear.\n{leak}: secret words here.\nIMPRESSION: Normal."
        )
        assert sections.findings == "Lungs are clear.", leak
        assert sections.impression == "Normal.", leak


def test_organ_headings_belong_to_the_findings():
    sections = parse("FINDINGS:\nLUNGS: Clear.\nHEART: Normal.\nLINES AND TUBES: None.\nIMPRESSION: Normal.")
    assert sections.findings == "LUNGS: Clear.\nHEART: Normal.\nLINES AND TUBES: None."


def test_combined_heading_fills_the_findings():
    for heading in ("FINDINGS AND IMPRESSION", "FINDINGS/IMPRESSION", "Findings and impression", "IMPRESSION AND FINDINGS"):
        report = parse_report(f"INDICATION: Cough.\n\n{heading}: Lungs are clear today.")
        assert report.sections == Sections(findings="Lungs are clear today.", indication="Cough."), heading
        assert report.rule == "combined"


def test_impression_only():
    report = parse_report("INDICATION: Cough.\n\nIMPRESSION:  AP chest compared to ___:\n\nMild edema. Effusion: small.")
    assert report.sections.findings == ""
    assert report.sections.impression.endswith("Mild edema. Effusion: small.")
    assert (report.rule, report.unmarked) == ("none", False)


def test_film_description_as_heading():
    report = parse_report(" PORTABLE CHEST RADIOGRAPH:  Lungs are low. There is an effusion.\n\n IMPRESSION:  Effusion.")
    assert report.sections.findings == "Lungs are low. There is an effusion."
    assert report.rule == "view"
    for heading in ("FRONTAL AND LATERAL CHEST RADIOGRAPHS", "UPRIGHT AP VIEW OF THE CHEST", "Chest, two views"):
        assert parse(f"COMPARISON: ___.\n\n{heading}:  The heart is normal.").findings == "The heart is normal.", heading
    assert (
        parse("HISTORY: Cough.\n\nPORTABLE AP CHEST RADIOGRAPH DATED ___ AT 5:30 A.M.:  Clear both lungs.").findings
        == "Clear both lungs."
    )
    title = parse_report("CHEST, PA AND LATERAL:\n\nINDICATION: Cough.\n\nFINDINGS: Lungs are clear.")
    assert title.sections.findings == "Lungs are clear."
    inside = parse_report("FINDINGS: Two films.\nPORTABLE CHEST: Lungs are clear.\nIMPRESSION: Normal.")
    assert inside.sections.findings == "Two films.\nPORTABLE CHEST: Lungs are clear."


def test_unmarked_report_takes_the_paragraphs_after_the_last_heading():
    report = parse_report(
        "FINAL REPORT\n CHEST RADIOGRAPH\n \n INDICATION:  Pneumothorax.\n \n COMPARISON:  ___.\n \n"
        " As compared to the previous radiograph, there is no change.\n \n No pneumothorax.\n"
    )
    assert report.sections.findings == "As compared to the previous radiograph, there is no change.\n\nNo pneumothorax."
    assert report.sections.comparison == "___." and report.sections.indication == "Pneumothorax."
    assert report.unmarked


def test_unmarked_body_before_an_impression():
    report = parse_report("INDICATION: Cough.\n\nCOMPARISON: ___.\n\nThe lungs are clear.\n\nIMPRESSION: Normal.")
    assert report.sections == Sections("The lungs are clear.", "Normal.", "Cough.", "___.")
    assert (report.rule, report.unmarked) == ("body", True)


def test_a_long_indication_before_an_impression_is_no_body():
    report = parse_report("INDICATION: Cough for two weeks.\n\nRule out a pneumonia.\n\nIMPRESSION: Normal.")
    assert report.sections.findings == ""
    assert "Rule out" in report.sections.indication


def test_report_without_any_heading():
    assert parse("The lungs are clear.\nNo effusion.").findings == "The lungs are clear.\nNo effusion."
    assert (
        parse("CHEST, TWO VIEWS, ___\n\nThe lungs are clear.\n\nNo effusion.").findings == "The lungs are clear.\n\nNo effusion."
    )
    assert parse("LUNGS ARE CLEAR.\n\nNO EFFUSION.").findings == "LUNGS ARE CLEAR.\n\nNO EFFUSION."


def test_leading_remark_on_the_film_is_no_finding():
    report = parse_report(
        "REASON FOR EXAMINATION:  Intubation.\n\nPortable AP radiograph of the chest was reviewed in comparison to ___.\n\n"
        "The ET tube tip is 3 cm above the carina.\n\nAtelectasis is unchanged."
    )
    assert report.sections.findings == "The ET tube tip is 3 cm above the carina.\n\nAtelectasis is unchanged."


def test_wet_read_before_the_final_report_is_dropped():
    report = parse(
        "WET READ: ___ ___ 10:03 PM\n  Big effusion. IMPRESSION: wet.\nWET READ VERSION #1 ___\n" + "_" * 78 + "\n" + STANDARD
    )
    assert report == parse(STANDARD)
    assert parse("WET READ: ___ 10:03 PM\n Big effusion here.\n").findings == ""


def test_addendum_is_no_finding():
    assert parse(STANDARD + "\n FINAL ADDENDUM\n ADDENDUM  The tube is low.\n") == parse(STANDARD)
    assert parse(" ADDENDUM  The tube is low.\n" + "_" * 60 + "\n" + STANDARD) == parse(STANDARD)


def test_repeated_sections_keep_both_texts_once():
    assert (
        parse("FINDINGS: Chest clear.\nFINDINGS: Abdomen normal.\nFINDINGS: Chest clear.").findings
        == "Chest clear.\nAbdomen normal."
    )
    assert parse("FINDINGS:\n\nINDICATION: x\nFINDINGS: Chest clear.").findings == "Chest clear."


def test_words_of_sentences_are_no_headings():
    text = "FINDINGS: The above\nfindings: were discussed. In comparison: nothing. Seen at 10:30: stable.\nHistory of cough: no."
    assert parse(text).findings == text.removeprefix("FINDINGS: ")


def test_placeholders_survive_and_ruled_lines_and_signatures_do_not():
    sections = parse("FINDINGS: Seen by\n___\nand ___.\n" + "_" * 40 + "\nDR. ___\n")
    assert sections.findings == "Seen by\n___\nand ___."


@pytest.mark.parametrize("text", ["", " \n\t\r\n", "\x00\x01", "\ufeff", "\u200b"])
def test_empty(text):
    assert parse_report(text) == ParsedReport(Sections(), "empty", unmarked=False)


def test_classify():
    assert classify("Chest, PA and lateral") == "view"
    assert classify("AP CHEST, 8:15 P.M.") == "view"
    assert classify("Comparison to the prior study shows") is None
    assert classify("PROVISIONAL FINDINGS IMPRESSION (PFI)") == "closed"
    assert classify("LUNGS") is None


_WORDS = st.sampled_from(
    [
        "FINDINGS",
        "Impression",
        "WET READ",
        "FINAL REPORT",
        "COMPARISON",
        "ADDENDUM",
        "CHEST",
        ":",
        "___",
        "\n",
        "\n \n",
        " ",
        ".",
        "clear",
    ]
)


@given(
    st.one_of(
        st.text(alphabet=st.characters()), st.lists(_WORDS, max_size=40).map("".join), st.lists(_WORDS, max_size=40).map(" ".join)
    )
)
@settings(max_examples=400, deadline=None)
def test_any_string_parses_and_can_be_stored(text):
    report = parse_report(text)
    study = Study("s1", "p1", "train", sections=report.sections)
    assert Study.from_json(study.to_json()) == study
    assert report.rule in {"findings", "combined", "view", "body", "none", "empty"}
    assert bool(report.sections.findings) == (report.rule not in {"none", "empty"})


def test_lone_surrogates_are_replaced():
    assert parse("FINDINGS: a \ud800 clear lung.").findings == "a ? clear lung."


def calls(text: str) -> int:
    """Functions called to parse `text`, in Python and in C: work that can be counted, and is the same on every machine."""
    count = 0

    def counted(*_) -> None:
        nonlocal count
        count += 1

    sys.setprofile(counted)
    try:
        parse_report(text)
    finally:
        sys.setprofile(None)
    return count


HOSTILE = (
    "A",
    "A ",
    "\n",
    " ",
    ":",
    "_",
    "(((",
    "FINDINGS ",
    "FINDINGS: ",
    "FINDINGS AND ",
    "A. Findings: b. ",
    "CHEST X-RAY: ",
    "DR. ",
)
HOSTILE += ("WET READ\n", "WET READ\nFINAL REPORT\n", "ADDENDUM\n", "FINAL ADDENDUM\nFINAL REPORT\n", "\n___\n", "IMPRESSION\n")
REPORT = "\n\nFINAL REPORT\nFINDINGS: The lungs are clear.\nIMPRESSION: Normal.\n"


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_costs_work_in_proportion_and_hides_no_report(piece):
    long = piece * (40_000 // len(piece))
    sections = parse(long + REPORT)
    assert sections.findings.endswith("The lungs are clear.") and sections.impression.endswith("Normal.")
    assert calls(long + long) < 2.1 * calls(long) + 1000


@pytest.mark.parametrize("piece", ["A", "(((", "DR. ", "FINDINGS AND "])
def test_a_report_after_a_megabyte_of_nothing(piece):
    assert parse(piece * ((1 << 20) // len(piece)) + REPORT) == Sections("The lungs are clear.", "Normal.")


GOLDEN = json.loads(Path(__file__).with_name("golden_reports.json").read_text())


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_reports(name):
    """Reports as MIMIC-CXR writes them, by hand, with the sections that a reader finds in them."""
    golden = GOLDEN[name]
    expected = Sections(*(golden[section] for section in ("findings", "impression", "indication", "comparison")))
    report = parse_report(golden["report"])
    assert (report.sections, report.rule) == (expected, golden["rule"])
    for other in (golden["report"].replace("\n", "\r\n"), golden["report"].rstrip(), "\n\n" + golden["report"] + "\n\n "):
        assert parse(other) == expected


def test_real_reports_written_out_come_back():
    path = SHARED / "data" / "openi" / "reports.jsonl"
    if not path.is_file():
        pytest.skip(f"no Open-i reports under {SHARED}")
    wrong = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        report = json.loads(line)
        texts = {name: " ".join((report[name] or "").split()) for name in ("indication", "comparison", "findings", "impression")}
        written = "\n\n".join(f" {name.upper()}:  {text}" for name, text in texts.items())
        parsed = parse("                  FINAL REPORT\n EXAMINATION:  CHEST RADIOGRAPH\n\n" + written)
        wrong += any(getattr(parsed, name) != texts[name] for name in texts)
    assert wrong <= 3  # texts that hold a heading of their own
