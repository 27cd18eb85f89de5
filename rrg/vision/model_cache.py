"""Models that ship inside a Python package in another format, converted once into a folder that transformers loads."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rrg.errors import UserError
from rrg.shards.reading import cache_root

_AT_WORK = 3600.0  # seconds


def packaged_file(package: str, path: str, command: str, name: str) -> Path:
    """A file of an installed package, found without importing it (the import would ask for what the file does not need).

    Raises UserError that says which `command` installs it where the package or the file is missing.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / path).is_file():
            return Path(folder) / path
    raise UserError(f"{name} needs the file {path} of a package that is not installed; run: {command}")


def convert_once(name: str, source: Path, version: str, convert: Callable[[Path, Path], None]) -> Path:
    """The folder `embedded/NAME-DIGEST` of the cache, made by `convert(source, folder)` where it is not there yet.

    DIGEST is over the source's bytes and the converter's `version`.
    """
    try:
        return made_once("embedded", f"{name}-{_digest(source, version)}", source, convert)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise UserError(
            f"cannot write the converted {name} below {cache_root() / 'embedded'}: {error.strerror}; set RRG_CACHE to another "
            "folder"
        ) from None


def made_once(kind: str, name: str, source: Path, convert: Callable[[Path, Path], None]) -> Path:
    """The folder `KIND/NAME` of the cache, made by `convert(source, folder)` where it is not there yet; `name` tells its content.

    A folder appears whole or not at all, and several processes may ask at once: one converts, the others wait; where the file
    system has no locks, all convert and one rename wins. Raises OSError where it cannot be written.
    """
    root = cache_root() / kind
    target = root / name
    if target.is_dir():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with _lock(root / f"{target.name}.lock"):
        if not target.is_dir():
            _remove_left(target)
            _convert_into(target, source, convert)
    return target


def _remove_left(target: Path) -> None:
    """What killed processes left of this conversion, which may be as large as the model. What was touched within the hour may be
    at work on another machine, where the file system's locks do not reach."""
    for folder in target.parent.glob(f".{target.name}-*"):
        with contextlib.suppress(OSError):  # somebody else removes it
            if max(path.stat().st_mtime for path in (folder, *folder.iterdir())) < time.time() - _AT_WORK:
                shutil.rmtree(folder, ignore_errors=True)


def _convert_into(target: Path, source: Path, convert: Callable[[Path, Path], None]) -> None:
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        convert(source, folder)
        for path in [*folder.iterdir(), folder]:
            path.chmod(0o755 if path.is_dir() else 0o644)  # temporary files are for their owner alone; a cache may be shared
            _fsync(path)
        with contextlib.suppress(OSError):  # another process without locks was first; its folder has the same content
            folder.replace(target)
        _fsync(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not target.is_dir():
        raise OSError(f"{target} could not be put in place")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("a") as handle:
        with contextlib.suppress(OSError):  # no locks on this file system: the rename decides
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Neither progress bars nor load reports of transformers inside: they would appear once per rank, and loads here are
    checked for missing weights by their callers."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@functools.lru_cache(maxsize=8)
def _digest(source: Path, version: str) -> str:
    with source.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256")
    digest.update(version.encode())
    return digest.hexdigest()[:16]
