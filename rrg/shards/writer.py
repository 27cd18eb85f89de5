"""From studies and their films to a folder of shards: parallel, restartable, byte for byte reproducible."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from itertools import chain, islice
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

from rrg.data.study import SPLITS
from rrg.errors import UserError
from rrg.shards.distinct import Digests
from rrg.shards.images import ImagePolicy
from rrg.shards.index import Damage
from rrg.shards.manifest import EXCLUDED, MANIFEST, Manifest, SplitEntry, canonical
from rrg.shards.packing import PackedShard, pack
from rrg.shards.plan import Excluded, Plan, ShardTask, SourceStudy, by_split, check_films_exist, claim_folder
from rrg.shards.storage import remove_leftovers, replace_file, replacing

__all__ = ["Excluded", "ImagePolicy", "SourceStudy", "build_shards"]

_SHOWN = 5
_USERS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENOTDIR, errno.EEXIST}


def build_shards(
    out: Path,
    studies: Sequence[SourceStudy],
    *,
    source: Mapping[str, Any],
    policy: ImagePolicy,
    parser_version: str,
    studies_per_shard: int = 256,
    workers: int = 1,
    excluded: Sequence[Excluded] = (),
    max_damaged: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write shards, indexes, `excluded.jsonl` and at last `manifest.json` into `out`.

    May be killed at any moment: the same call again redoes only what is not finished and ends with the same bytes. Studies
    keep their order inside a split; views are renamed to the members that hold their films.

    Args:
        source: where the studies come from; JSON values, recorded in the manifest.
        workers: processes; each writes one shard at a time and holds the films of one study.
        excluded: studies the caller left out; listed beside those left out here.
        max_damaged: so many studies with a film that does not decode are left out and listed; one more stops the run.
        progress: called with (studies done, studies in all) after each shard.

    Raises:
        UserError: see `by_split`, `check_films_exist` and `claim_folder`; more damaged studies than allowed; `out` cannot be
            written, or another run is writing into it.
    """
    if workers < 1:
        raise UserError(f"workers {workers}: write 1 or more")
    plan = Plan(source, parser_version, policy, studies_per_shard, by_split(studies))
    check_films_exist(studies)
    with _writable(out), _sole_writer(out):
        settings = plan.settings()
        claim_folder(out, settings)
        remove_leftovers(out)
        shards = _pack_all(plan, out, workers, max_damaged, progress)
        damaged = [damage for shard in shards for damage in shard.damaged]
        listed = [Excluded(damage.study, damage.reason) for damage in damaged]
        manifest = Manifest(
            source=settings["source"],
            parser_version=parser_version,
            image_policy=policy,
            studies_per_shard=studies_per_shard,
            shards=tuple(shard.entry for shard in shards),
            splits=_totals(plan, shards, {damage.study for damage in damaged}),
            excluded=len(excluded) + len(listed),
        )
        _write_excluded(out / EXCLUDED, lambda: chain(excluded, listed))
        replace_file(out / MANIFEST, manifest.to_json())
    return manifest


def _write_excluded(path: Path, items: Callable[[], Iterable[Excluded]]) -> None:
    """One line per study that is left out, unless the file says just that already; there may be a hundred thousand of them."""

    def lines() -> Iterator[bytes]:
        return (canonical({"study": item.study, "reason": item.reason}) + b"\n" for item in items())

    if path.is_file():
        with path.open("rb") as there:
            if all(there.read(len(line)) == line for line in lines()) and not there.read(1):
                return
    with replacing(path) as file:
        file.writelines(lines())


def _pack_all(
    plan: Plan, out: Path, workers: int, max_damaged: int, progress: Callable[[int, int], None] | None
) -> list[PackedShard]:
    """Every shard of the plan, in its order."""
    total, done = sum(len(studies) for studies in plan.studies.values()), 0
    shards: list[PackedShard] = []
    damaged: list[Damage] = []
    tasks = plan.tasks(out)
    with closing(map_here(tasks) if workers == 1 else map_in_processes(tasks, workers)) as finished:
        for shard in finished:
            shards.append(shard)
            damaged += shard.damaged
            if len(damaged) > max_damaged:
                raise _too_many(damaged, max_damaged)
            done += shard.entry.studies + len(shard.damaged)
            if progress is not None:
                progress(done, total)
    return sorted(shards, key=lambda shard: (SPLITS.index(shard.entry.split), shard.number))


def map_here(tasks: Iterator[ShardTask]) -> Generator[PackedShard, None, None]:
    """Pack one task after another in this process."""
    yield from map(pack, tasks)


def map_in_processes(tasks: Iterator[ShardTask], workers: int) -> Generator[PackedShard, None, None]:
    """Pack tasks in spawned processes, results as they come; only a few tasks exist at a time."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    waiting: set[Future[PackedShard]] = set()
    try:
        while True:
            waiting |= {pool.submit(pack, task) for task in islice(tasks, 2 * workers - len(waiting))}
            if not waiting:
                return
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, often for want of memory: run the same command with fewer workers; "
            "finished shards are kept"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    # webdataset imports torch where it can, for its loaders; packing needs only its tar writer. 2 s and 200 MB per process.
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A pool's processes outlive a killed parent and would go on writing beside the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _totals(plan: Plan, shards: Sequence[PackedShard], damaged: set[str]) -> dict[str, SplitEntry]:
    totals = {}
    for split, studies in plan.studies.items():
        entries = [shard.entry for shard in shards if shard.entry.split == split]
        patients = len(Digests(source.study.patient for source in studies if source.study.id not in damaged).distinct())
        totals[split] = SplitEntry(sum(entry.studies for entry in entries), sum(entry.images for entry in entries), patients)
    return totals


def _too_many(damaged: Sequence[Damage], allowed: int) -> UserError:
    first = "; ".join(f"study {damage.study}, {damage.reason}" for damage in damaged[:_SHOWN])
    more = "; …" if len(damaged) > _SHOWN else ""
    return UserError(
        f"at least {len(damaged)} studies have a damaged film, {allowed} allowed: {first}{more}. Fetch the files again, or "
        f"allow more with max_damaged; finished shards are kept"
    )


@contextmanager
def _writable(out: Path) -> Iterator[None]:
    """Say in one line that the folder is not writable or its disk is full."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno not in _USERS:
            raise
        raise UserError(f"cannot write shards into {out}: {error.strerror}; free space there or choose another folder") from None


@contextmanager
def _sole_writer(out: Path) -> Iterator[None]:
    """Hold the folder for this run. The lock is the kernel's: it leaves no file and ends with the process."""
    folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is writing shards into {out}: wait for it, or choose another folder") from None
        except OSError as error:
            if error.errno not in {errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.EBADF}:  # file systems without locks
                raise
        yield
    finally:
        os.close(folder)
