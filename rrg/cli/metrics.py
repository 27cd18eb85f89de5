"""`rrg metrics`: clinical metrics that need packages and weights of their own; what is there, installing, where weights lie."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

EXAMPLE = """examples:
  rrg metrics list
  rrg metrics install radgraph
  rrg metrics files chexbert.weights=chexbert.pth:SHA256 chexbert.vocab=bert-base-uncased
  rrg score reports.jsonl --protocol findings --shards none --with chexbert,radgraph

Environments and the record of files lie in $RRG_METRICS (default: the folder `metrics` of rrg's cache). A metric that cannot be
computed is reported as missing, with the reason; the scores of the others do not depend on it.
"""


def register(commands: Any) -> None:
    """Add the command to the parser of `rrg`."""
    parser = commands.add_parser(
        "metrics",
        help="clinical metrics in environments of their own",
        description="CheXbert, RadGraph, BERTScore, RaTEScore, GREEN, RadCliQ, each in a process with its own interpreter.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="which metrics can be computed here, and why not the others")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_list)
    install = actions.add_parser("install", help="make the environment of a metric from its lock file")
    install.add_argument("name", metavar="NAME", help="a metric or its environment")
    install.add_argument("--python", metavar="PYTHON", help="interpreter to make it with (default: rrg's own)")
    install.set_defaults(run=_install)
    files = actions.add_parser("files", help="say where weights lie; their sha256 is kept and checked at every use")
    files.add_argument(
        "settings", nargs="+", metavar="METRIC.KEY=PATH[:SHA256]", help="for example chexbert.weights=chexbert.pth"
    )
    files.set_defaults(run=_files)


def _list(options: argparse.Namespace) -> int:
    """A table, or JSON: every metric, whether it can be computed, and if not why."""
    import json

    from rrg.metrics.external.availability import availability
    from rrg.metrics.external.catalogue import METRICS

    found = [availability(name) for name in METRICS]
    if options.json:
        print(json.dumps({one.name: _entry(one) for one in found}, indent=1))
        return 0
    for one in found:
        print(f"{one.name}: {METRICS[one.name].title}")
        print(f"  missing: {one.missing}" if one.missing else f"  can be computed: {one.interpreter.reason}")
        for key, meaning in METRICS[one.name].files.items():
            file = one.files.get(key)
            print(f"  {one.name}.{key}: {file.path if file else 'not set'} ({meaning})")
    return 0


def _entry(one: Any) -> dict[str, Any]:
    from rrg.metrics.external.catalogue import METRICS

    spec = METRICS[one.name]
    return {
        "available": not one.missing,
        "missing": one.missing,
        "environment": spec.environment,
        "parts": list(spec.parts),
        "python": str(one.interpreter.python or ""),
        "interpreter": one.interpreter.reason,
        "files": {key: {"path": str(file.path), "sha256": file.sha256} for key, file in one.files.items()},
        "title": spec.title,
        "source": spec.source,
    }


def _install(options: argparse.Namespace) -> int:
    """Make the environment; exit 2 with pip's last line where that fails."""
    import sys

    from rrg.metrics.external.catalogue import environment_of
    from rrg.metrics.external.installing import install

    python = install(environment_of(options.name), options.python or sys.executable, say=lambda line: print(line, flush=True))
    print(f"interpreter: {python}")
    return 0


def _files(options: argparse.Namespace) -> int:
    """Check paths and digests, keep them, print the digests."""
    from rrg.metrics.external.weights import MetricFile, parse_setting, remember

    given: dict[str, dict[str, MetricFile]] = {}
    for setting in options.settings:
        name, key, file = parse_setting(setting)
        given.setdefault(name, {})[key] = MetricFile(Path(file.path).expanduser(), file.sha256)
    for name, files in given.items():
        for key, digest in remember(name, files).items():
            print(f"{name}.{key}: {files[key].path} sha256 {digest}")
    return 0
