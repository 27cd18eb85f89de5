"""The page of a comparison: films beside all reports, escaped text, the most different studies first."""

from pathlib import Path

from fabricated_run import REPORTS, write_shards

from rrg.data.protocols import get_protocol
from rrg.metrics.comparison import System, compare_systems
from rrg.metrics.reports import Reading
from rrg.view.comparison import most_different, render_comparison

READING = Reading(get_protocol("findings"))


def system(name: str, texts: list[str]) -> System:
    rows = [
        {"study": study, "generated": text, "reference": reference, "section": "findings"}
        for (study, reference, _), text in zip(REPORTS, texts, strict=True)
    ]
    return System(name, (rows,))


OWN = system("own", [generated for _, _, generated in REPORTS])
TRUE = system("<true>", [reference for _, reference, _ in REPORTS])


def page(**more: object) -> str:
    comparison = compare_systems([OWN, TRUE], READING, ("findings_micro_f1", "rouge_l"), resamples=20, permutations=50)
    return render_comparison([OWN, TRUE], comparison, READING, **({"shards": None, "split": "test"} | more))  # type: ignore[arg-type]


def test_most_different_by_finding_errors_then_likeness():
    order = most_different([OWN, TRUE], READING, 5)
    assert order[0] == 4 and set(order[:3]) == {1, 2, 4} and order[-1] == 3  # S5 misses one and invents one, S4 is the same


def test_films_reports_and_escapes(tmp_path: Path):
    write_shards(tmp_path / "shards", tmp_path / "source")
    html = page(shards=str(tmp_path / "shards"))
    assert html.count("data:image/jpeg;base64,") >= 5 and html.count("<article") == 5
    assert "&lt;true&gt;" in html and "<true>" not in html
    assert html == page(shards=str(tmp_path / "shards"))


def test_without_films_it_says_so(tmp_path: Path):
    assert "name the shards" in page()
    assert "Films are not shown" in page(shards=str(tmp_path / "nowhere"))
