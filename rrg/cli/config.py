"""`rrg config show|diff|explain`: what a recipe says, how two differ, and what may be written at all."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

EXAMPLE = """examples:
  rrg config show r2gengpt_iu train.lr=3e-4          the resolved recipe, with where each value was set
  rrg config diff r2gengpt_iu r2gengpt_mimic         two systems as the differences of two short files
  rrg config explain vision.swin                     the options of one kind of part"""


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command and its three verbs."""
    parser = commands.add_parser(
        "config", help="show, diff and explain recipes", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", metavar="show|diff|explain", required=True)
    show = _verb(verbs, "show", "the resolved recipe", run_show)
    show.add_argument("recipe")
    show.add_argument("overrides", nargs="*", metavar="key=value")
    show.add_argument("--plain", action="store_true", help="YAML only, without where each value was set")
    diff = _verb(verbs, "diff", "what differs between two recipes", run_diff)
    diff.add_argument("left")
    diff.add_argument("right")
    diff.add_argument("overrides", nargs="*", metavar="key=value", help="applied to both")
    explain = _verb(verbs, "explain", "every option with type, default and meaning", run_explain)
    explain.add_argument("what", nargs="?", default="", help="a section (train), or a part and its kind (vision.swin)")


def _verb(
    verbs: argparse._SubParsersAction, name: str, summary: str, work: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=work)
    return parser


def run_show(options: argparse.Namespace) -> int:
    """YAML with the origin of every value that a file or an override set."""
    from rrg.recipe import load_recipe

    loaded = load_recipe(options.recipe, options.overrides)
    if options.plain:
        print(loaded.to_yaml(), end="")
        return 0
    print(f"# {options.recipe}, resolved; what has no remark is a default")
    for line in annotated(loaded.to_yaml(), loaded.origins):
        print(line)
    return 0


def annotated(text: str, origins: Mapping[str, str]) -> list[str]:
    """The lines of a YAML mapping, each leaf with its origin as a comment after its value: still the same YAML."""
    import yaml

    lines = text.rstrip("\n").split("\n")
    for key, place in _places(yaml.compose(text)):
        if key in origins:
            lines[place] = f"{lines[place]:<60}  # {' '.join(origins[key].split())}"
    return lines


def _places(node: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """(dotted key, line where a comment may follow) of every value: the last line of a text, the key's own of a list."""
    for key, value in node.value:
        name = f"{path}.{key.value}" if path else str(key.value)
        if value.id == "mapping" and value.value:
            yield from _places(value, name)
        else:
            yield name, value.end_mark.line if value.id == "scalar" else key.start_mark.line


def run_diff(options: argparse.Namespace) -> int:
    """A table of differing keys."""
    from rich.table import Table
    from rich.text import Text

    from rrg.config.explain import told
    from rrg.recipe import load_recipe

    left, right = (load_recipe(name, options.overrides).value for name in (options.left, options.right))
    table = Table("key", options.left, options.right, title_justify="left")
    rows = [row for row in told(left, right) if row.key not in ("name", "output")]
    for key, a, b in rows:
        table.add_row(*(Text(str(value), overflow="fold") for value in (key, a, b)))
    _console().print(table) if rows else print("the two recipes are equal")
    return 0


def run_explain(options: argparse.Namespace) -> int:
    """Every option below a section or part."""
    from rich.table import Column, Table
    from rich.text import Text

    from rrg.config.explain import options as documented
    from rrg.connector.family import CONNECTOR
    from rrg.errors import UserError, nearest
    from rrg.language.family import LANGUAGE
    from rrg.objectives.family import OBJECTIVE
    from rrg.recipe import Recipe
    from rrg.vision.family import VISION

    families = {"vision": VISION, "connector": CONNECTOR, "language": LANGUAGE, "objectives": OBJECTIVE}
    name, _, kind = options.what.partition(".")
    if name in families and kind:
        rows = list(documented(families[name].get(kind).options, name))
    else:
        inside = f"{options.what}." if options.what else ""
        rows = [row for row in documented(Recipe) if row.key == options.what or row.key.startswith(inside)]
    if not rows:
        raise UserError(
            f"config explain {options.what!r}: no such section; {nearest(options.what, {r.key for r in documented(Recipe)})}"
        )
    whole = min(48, max(len(str(row.default)) for row in rows))  # a name to be copied stays in one line
    table = Table(Column("key", no_wrap=True), "type", Column("default", min_width=whole), "meaning")
    for row in rows:
        table.add_row(*(Text(str(value), overflow="fold") for value in (row.key, row.type, row.default, row.doc)))
    _console().print(table)
    if name in families and not kind:
        for each in families[name].kinds.values():
            print(f"  {name}.{each.name}: {each.summary}")
    return 0


def _console() -> Console:
    """Where tables go: a file or a pipe has no width, so nothing is to be cut to eighty columns there."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140
    return console
