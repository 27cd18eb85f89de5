"""`rrg config show|diff|explain`: what a recipe says, how two differ, and what may be written at all."""

from __future__ import annotations

import argparse

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
    show = verbs.add_parser("show", help="the resolved recipe")
    show.add_argument("recipe")
    show.add_argument("overrides", nargs="*", metavar="key=value")
    show.add_argument("--plain", action="store_true", help="YAML only, without where each value was set")
    show.set_defaults(run=run_show)
    diff = verbs.add_parser("diff", help="what differs between two recipes")
    diff.add_argument("left")
    diff.add_argument("right")
    diff.add_argument("overrides", nargs="*", metavar="key=value", help="applied to both")
    diff.set_defaults(run=run_diff)
    explain = verbs.add_parser("explain", help="every option with type, default and meaning")
    explain.add_argument("what", nargs="?", default="", help="a section (train), or a part and its kind (vision.swin)")
    explain.set_defaults(run=run_explain)


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


def annotated(yaml: str, origins: dict[str, str]) -> list[str]:
    """The lines of a YAML mapping, each leaf with its origin as a comment."""
    trail: list[str] = []
    lines = []
    for line in yaml.splitlines():
        indent = (len(line) - len(line.lstrip())) // 2
        key, colon, _ = line.strip().partition(":")
        if colon and not line.lstrip().startswith("- "):
            trail = [*trail[:indent], key]
            origin = origins.get(".".join(trail))
            line = f"{line:<60}  # {origin}" if origin else line
        lines.append(line)
    return lines


def run_diff(options: argparse.Namespace) -> int:
    """A table of differing keys."""
    from rich.console import Console
    from rich.table import Table

    from rrg.config.explain import differences
    from rrg.recipe import load_recipe

    left, right = (load_recipe(name, options.overrides).value for name in (options.left, options.right))
    table = Table("key", options.left, options.right, title_justify="left")
    rows = [row for row in differences(left, right) if row.key not in ("name", "output")]
    for key, a, b in rows:
        table.add_row(key, str(a), str(b))
    Console().print(table) if rows else print("the two recipes are equal")
    return 0


def run_explain(options: argparse.Namespace) -> int:
    """Every option below a section or part."""
    from rich.console import Console
    from rich.table import Table

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
        rows = [row for row in documented(Recipe) if row.key == options.what or row.key.startswith(options.what)]
    if not rows:
        raise UserError(
            f"config explain {options.what!r}: no such section; {nearest(options.what, {r.key for r in documented(Recipe)})}"
        )
    table = Table("key", "type", "default", "meaning")
    for row in rows:
        table.add_row(row.key, row.type, str(row.default), row.doc)
    Console().print(table)
    if name in families and not kind:
        for each in families[name].kinds.values():
            print(f"  {name}.{each.name}: {each.summary}")
    return 0
