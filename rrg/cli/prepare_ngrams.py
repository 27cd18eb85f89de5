"""`rrg prepare ngrams`: which phrases go with which observation, from the training reports."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.errors import UserError

if TYPE_CHECKING:
    from rrg.data.study import Study
    from rrg.observations.ngrams import NgramTable
    from rrg.observations.provenance import LabelProvider

EXAMPLE = """example:
  rrg prepare ngrams --shards shards/iu --labels iu_xray_tags.csv --out ngrams/iu.json
  rrg prepare ngrams --annotation annotation.json --labels rules --pmi textbook --out ngrams/iu.json

reads the training split only. --labels is a table (a row per study, a column per observation), or shards (the labels stored with
the studies), rules (our rules on each report) or chexpert (the published labeller's rules)."""

# Collection → cleaning, and the published threshold of occurrences (spec cmeaa §5b).
COLLECTIONS = {"iu-xray": ("clean_organ_iu", 150), "mimic-cxr": ("clean_organ_mimic", 200)}


def register(sources: Any) -> None:
    """Add the command to the sources of `rrg prepare`."""
    summary = "n-grams of each observation, from the training reports"
    parser: argparse.ArgumentParser = sources.add_parser(
        "ngrams", help=summary, description=f"{summary}.", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reports = parser.add_mutually_exclusive_group(required=True)
    reports.add_argument("--shards", metavar="SHARDS", help="the folder (or URL) that 'rrg prepare' wrote")
    reports.add_argument("--annotation", type=Path, metavar="FILE", help="R2Gen's annotation.json instead")
    parser.add_argument("--labels", required=True, metavar="SOURCE", help="a table FILE.csv[.gz], shards, rules or chexpert")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the table to write (JSON)")
    parser.add_argument("--pmi", default="organ", metavar="MODE", help="organ: as the released lists (default); textbook")
    parser.add_argument("--min-count", type=int, metavar="N", help="occurrences that are too few (150; MIMIC-CXR 200)")
    parser.add_argument("--cleaning", metavar="NAME", help="clean_organ_iu or clean_organ_mimic (by the collection)")
    parser.add_argument("--section", default="findings", metavar="NAME", help="findings (default) or impression")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Build the table, write it, say what is in it."""
    from rrg.observations.ngram_build import NgramOptions, build_ngrams
    from rrg.observations.phrase_inventory import InventoryRules

    provider, described = label_provider(options.labels, options.section, in_shards=options.shards is not None)
    studies, collection, source = _training_studies(options)
    cleaning, count = COLLECTIONS.get(collection, COLLECTIONS["iu-xray"])
    rules = InventoryRules(count if options.min_count is None else options.min_count)
    chosen = NgramOptions(options.pmi, options.cleaning or cleaning, options.section, rules)
    table = build_ngrams(studies, provider.labels, chosen, {"source": source, "labels": described})
    table.save(options.out)
    _show(options.out, table)
    return 0


def label_provider(word: str, section: str, *, in_shards: bool) -> tuple[LabelProvider, dict[str, Any]]:
    """The provider of labels of reports that `word` names, and how a file describes it. Raises UserError."""
    from rrg.digest import digest_file
    from rrg.observations.providers import RULES, CsvLabels, RuleLabels, ShardLabels

    if word in RULES:
        return RuleLabels(section, word), {"provider": word, "version": RULES[word][1], "section": section}
    if word == "shards":
        if not in_shards:
            raise UserError("--labels shards: an annotation file holds no labels; write rules, chexpert or a table")
        return ShardLabels(), {"provider": "shards"}
    path = Path(word)
    if not path.is_file():
        raise UserError(f"--labels {word}: no such file, and none of shards, {', '.join(RULES)}")
    return CsvLabels(path), {"provider": "table", "name": path.name, "sha256": digest_file(path)}


def read_studies(shards: Any) -> Iterator[Study]:
    """Every study of an opened split, without its films. Raises UserError where one cannot be read."""
    from rrg.shards.reader import DamagedSample

    for index in range(len(shards)):
        try:
            yield shards.study(index)
        except DamagedSample as damage:
            raise UserError(f"{shards.root}: {damage}; mend the shards ('rrg prepare verify' lists all damage)") from None


def _training_studies(options: argparse.Namespace) -> tuple[Iterator[Study], str, dict[str, Any]]:
    """The training studies, the name of their collection, and what is kept of where they came from."""
    from rrg.data.prepare.iu_xray import read_annotation
    from rrg.data.study import Sections, Study
    from rrg.digest import digest_file
    from rrg.shards.reader import ShardSet

    if options.shards is not None:
        shards = ShardSet(options.shards, "train")
        name = str(shards.manifest.source.get("name", ""))
        return read_studies(shards), name, {"name": name, "shards": shards.digest}
    if options.section != "findings":
        raise UserError("--section: an annotation file holds the findings only; prepare shards with --reports for the impression")
    records = [record for record in read_annotation(options.annotation) if record.split == "train"]
    studies = (Study(record.id, record.patient, "train", sections=Sections(record.report)) for record in records)
    return studies, "iu-xray", {"name": "iu-xray", "annotation": digest_file(options.annotation)}


def _show(out: Path, table: NgramTable) -> None:
    made = table.made
    print(f"{made['reports']:,} training reports ({made['empty']:,} empty, {made['unlabelled']:,} without labels)")
    print(f"{made['cleaning']}, more than {made['thresholds']['min_count']} occurrences, {made['pmi']} association")
    lengths = ", ".join(f"{count:,} of {words}" for words, count in table.entries_by_words().items())
    entries = sum(len(ids) for ids in table.lists.values())
    print(f"{out}: {len(table.ngrams):,} n-grams, {len(table.lists)} lists, {entries:,} entries (words: {lengths})")
