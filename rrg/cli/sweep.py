"""`rrg sweep FILE`, and `rrg sweep status | resubmit-failed | cancel | harvest`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrg.errors import UserError, nearest

if TYPE_CHECKING:
    from rrg.sweep.folder import SweepFolder
    from rrg.sweep.state import TrialState

EXAMPLE = """examples:
  rrg sweep configs/sweeps/cmeaa_table3.yaml --dry-run data.shards=shards/iu     the trials, and in what they differ
  rrg sweep configs/sweeps/cmeaa_table3.yaml --parallel 4 data.shards=shards/iu  submit them: Slurm where it is, else this machine
  rrg sweep learning_rate --local seeds=[1,2] slurm.time=240                     keys of the sweep's file may be overridden too
  rrg sweep status cmeaa_table3                    waiting, running at step k of n, done, failed with the reason
  rrg sweep resubmit-failed cmeaa_table3           failed trials again, from their checkpoints
  rrg sweep cancel cmeaa_table3                    take back what waits or runs
  rrg sweep harvest cmeaa_table3 --best findings_micro_f1        tables, plots, the best cell

Running the same command again submits only what is not finished. A sweep lives in sweeps/NAME (--folder): trials, logs, runs."""

VERBS = ("submit", "status", "resubmit-failed", "cancel", "harvest")


def register(commands: argparse._SubParsersAction) -> None:
    """Add the command and its verbs. `submit` may be left out."""
    parser = commands.add_parser(
        "sweep", help="many settings and seeds of a recipe", epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", metavar="[submit]|status|resubmit-failed|cancel|harvest", required=True)
    submit = _verb(verbs, "submit", "submit what is not finished", run_submit)
    submit.add_argument("sweep", metavar="FILE", help="a sweep file, or the name of one under configs/sweeps")
    submit.add_argument("--dry-run", action="store_true", help="print the trials and their differences, and write nothing")
    submit.add_argument("--folder", type=Path, metavar="DIR", help="folder of the sweep (default: sweeps/NAME)")
    _add_resources(submit)
    again = _verb(verbs, "resubmit-failed", "submit the trials that failed once more", run_resubmit)
    _add_trials(again)
    _add_resources(again)
    status = _verb(verbs, "status", "what every trial is doing", run_status)
    _add_trials(status)
    status.add_argument("--json", action="store_true", help="print JSON")
    _add_trials(_verb(verbs, "cancel", "take back what waits or runs", run_cancel))
    harvest = _verb(verbs, "harvest", "tables and plots of the scores", run_harvest)
    _add_trials(harvest)
    harvest.add_argument("--best", metavar="METRIC", help="metric that names the best cell (default: the sweep's)")
    harvest.add_argument("--metrics", metavar="A,B", help="columns of the table (default: the usual ones)")
    harvest.add_argument("--partial", action="store_true", help="let a cell that lacks seeds be the best")
    harvest.add_argument("--no-plots", action="store_true", help="tables only")
    words = parser.parse_known_args
    # The verb may be left out: `rrg sweep FILE` submits.
    parser.parse_known_args = lambda args=None, namespace=None: words(_with_verb(args or ()), namespace)


def _with_verb(arguments: Sequence[str]) -> list[str]:
    first = arguments[0] if arguments else ""
    return [*arguments] if first in (*VERBS, "-h", "--help", "") else ["submit", *arguments]


def _verb(
    verbs: argparse._SubParsersAction, name: str, summary: str, work: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=work)
    return parser


def _add_resources(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--cluster", choices=("slurm", "local", "debug"), help="default: slurm where sbatch is, else local")
    where.add_argument("--local", dest="cluster", action="store_const", const="local", help="on this machine")
    parser.add_argument("--parallel", type=int, metavar="N", help="trials at one time: parallel=N")
    parser.add_argument("--wait", action="store_true", help="stay until all are at their end; exit code 1 where one failed")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the sweep (slurm.time=60) or every trial's recipe")


def _add_trials(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="SWEEP", help="a sweep's folder, or its name where sweeps/NAME is here")
    parser.add_argument("--trial", action="append", default=[], metavar="NAME", help="only this trial (may be repeated)")


def run_submit(options: argparse.Namespace) -> int:
    """Expand, check, submit what is not finished."""
    from rrg.cli.sweep_table import console, print_expansion
    from rrg.sweep.expansion import expand
    from rrg.sweep.preparation import prepare, relative_folder
    from rrg.sweep.reading import find_sweep, read_sweep
    from rrg.sweep.state import ALIVE, DONE, states
    from rrg.sweep.submission import choose_cluster, gpus_of_trial

    if not Path(options.sweep).is_file() and "/" not in options.sweep:
        _check_word(options.sweep)
    asked = read_sweep(find_sweep(options.sweep), _with_parallel(options))
    folder = relative_folder(options.folder, asked.name)
    expansion = expand(asked, folder.root)
    if options.dry_run:
        print_expansion(expansion, folder.root, console())
        return 0
    cluster = choose_cluster(options.cluster)
    gpus = gpus_of_trial(asked.sweep.gpus, cluster)
    known = {one.entry.name: one for one in states(folder)} if folder.trials.is_file() else {}
    entries = prepare(expansion, folder, cluster, gpus)
    gone = len(known.keys() - {entry.name for entry in entries})
    if gone:
        print(f"{gone} trials of an earlier form of this sweep are left as they are")
    found = states(folder)
    todo = [one.entry for one in found if one.state not in (DONE, *ALIVE)]
    _submit(folder, todo, found, asked.sweep, cluster, gpus)
    return _afterwards(folder, options)


def run_resubmit(options: argparse.Namespace) -> int:
    """Submit failed trials again; they carry on from their checkpoints."""
    from rrg.sweep.preparation import with_resources
    from rrg.sweep.reading import read_resources
    from rrg.sweep.state import FAILED
    from rrg.sweep.submission import choose_cluster, gpus_of_trial

    folder, found = _found(options)
    sweep = read_resources(folder.sweep, _with_parallel(options))
    cluster = choose_cluster(options.cluster or _former(found))
    gpus = gpus_of_trial(sweep.gpus, cluster)
    failed = {one.entry.name for one in found if one.state == FAILED}
    entries = folder.entries()
    again = with_resources(
        [entry for entry in entries if entry.name in failed],
        cluster,
        sweep.processes or max(1, gpus),
        sweep.slurm.nodes,
        sweep.slurm.warning,
    )
    changed = {entry.name: entry for entry in again}
    folder.write_entries([changed.get(entry.name, entry) for entry in entries])
    _submit(folder, again, found, sweep, cluster, gpus)
    return _afterwards(folder, options)


def run_status(options: argparse.Namespace) -> int:
    """Print what every trial is doing."""
    from rrg.cli.sweep_table import console, print_states

    folder, found = _found(options)
    if options.json:
        print(json.dumps([one.to_json() for one in found], indent=1, ensure_ascii=False))
        return 0
    print_states(folder, found, console())
    return 0


def run_cancel(options: argparse.Namespace) -> int:
    """Cancel what waits or runs."""
    from rrg.sweep.cancellation import cancel

    folder, found = _found(options)
    names = cancel(folder, found)
    print(f"{len(names)} trials cancelled" + (f": {', '.join(names)}" if names else "; none waited or ran"))
    return 0


def run_harvest(options: argparse.Namespace) -> int:
    """Gather the scores, print and write tables and plots."""
    from rrg.cli.sweep_table import console, print_table
    from rrg.sweep.harvest import harvest
    from rrg.sweep.reading import read_resources
    from rrg.sweep.results import write_results

    folder, found = _found(options)
    best = options.best or read_resources(folder.sweep, []).best
    metrics = [word.strip() for word in options.metrics.split(",") if word.strip()] if options.metrics else None
    tables = harvest(folder, found, best=best, metrics=metrics, partial=options.partial)
    for table in tables:
        print_table(table, console())
    for path in write_results(folder, tables, plots=not options.no_plots):
        print(path)
    return 0


def _found(options: argparse.Namespace) -> tuple[SweepFolder, list[TrialState]]:
    """The sweep's folder and the states of the trials asked for."""
    from rrg.sweep.folder import find_folder
    from rrg.sweep.state import states

    folder = find_folder(options.folder)
    found = states(folder)
    names = [one.entry.name for one in found]
    unknown = next((name for name in options.trial if name not in names), None)
    if unknown is not None:
        raise UserError(f"--trial {unknown}: {folder.root} has no such trial; {nearest(unknown, names)}")
    return folder, [one for one in found if not options.trial or one.entry.name in options.trial]


def _submit(folder: SweepFolder, todo: Sequence[Any], found: Sequence[TrialState], sweep: Any, cluster: str, gpus: int) -> None:
    from rrg.sweep.submission import submit

    where = {"slurm": "to Slurm", "local": "to this machine", "debug": "one after another"}[cluster]
    most = sweep.parallel or int(cluster == "local")
    limit = f", at most {most} at one time" if most and cluster != "debug" else ""
    submit(folder, todo, sweep, cluster, gpus)
    print(f"{len(todo)} of {len(found)} trials submitted {where}{limit if todo else ''}; folder {folder.root}", flush=True)


def _afterwards(folder: SweepFolder, options: argparse.Namespace) -> int:
    """Wait where asked to, and say how it stands."""
    from rrg.cli.sweep_table import console, print_states
    from rrg.sweep.state import FAILED, states
    from rrg.sweep.waiting import wait

    if options.wait:
        wait(folder)
    elif options.cluster != "debug":
        print(f"rrg sweep status {folder.root}")
        return 0
    found = states(folder)
    print_states(folder, found, console())
    return int(any(one.state == FAILED for one in found))


def _with_parallel(options: argparse.Namespace) -> list[str]:
    return [*options.overrides, *([] if options.parallel is None else [f"parallel={options.parallel}"])]


def _former(found: Sequence[TrialState]) -> str | None:
    """Where the trials ran before."""
    return next((one.cluster for one in found if one.cluster), None)


def _check_word(word: str) -> None:
    """A misspelt verb is not a file that is missing."""
    import difflib

    close = difflib.get_close_matches(word, VERBS, n=1, cutoff=0.7)
    if close:
        raise UserError(f"rrg sweep {word}: no such verb and no such file; did you mean {close[0]!r}?")
