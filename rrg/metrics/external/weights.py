"""Where the weights of external metrics lie, and that they are the ones meant: paths with their sha-256.

`files.json` in a metric's folder remembers, for each key of the catalogue, a path and its digest. The digest is checked before
every use. No published digest is built in: what the user has pinned, or what was there when the path was set, is what counts.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

from rrg.digest import digest_file, digest_json
from rrg.errors import UserError, nearest
from rrg.metrics.external.catalogue import METRICS, metric
from rrg.metrics.external.environments import metrics_root
from rrg.shards.storage import replace_file

_PINNED = re.compile(r"^(?P<path>.*):(?P<sha256>[0-9a-fA-F]{64})$")


@dataclass(frozen=True)
class MetricFile:
    """A path, and the sha-256 that it must have ("": none was named)."""

    path: Path
    sha256: str = ""


def parse_setting(setting: str) -> tuple[str, str, MetricFile]:
    """`METRIC.KEY=PATH[:sha256]` → metric, key, file. Raises UserError: another form, no such metric or key."""
    name, _, value = setting.partition("=")
    owner, _, key = name.partition(".")
    if not value or not key:
        raise UserError(
            f"{setting!r}: write METRIC.KEY=PATH or METRIC.KEY=PATH:SHA256, for example chexbert.weights=chexbert.pth"
        )
    keys = metric(owner).files
    if key not in keys:
        raise UserError(f"{setting!r}: {owner} has no file {key!r}; {nearest(key, keys) if keys else 'it has none'}")
    if re.search(r":[0-9a-fA-F]{32,}$", value) and not _PINNED.match(value):
        raise UserError(f"{setting!r}: a sha256 has 64 hexadecimal digits")
    pinned = _PINNED.match(value)
    return owner, key, MetricFile(Path(pinned["path"]), pinned["sha256"].lower()) if pinned else MetricFile(Path(value))


def digest_path(path: Path) -> str:
    """sha256 of a file; of a folder, over the names and sha256 of its files."""
    if path.is_file():
        return _digest(path)
    files = sorted(found for found in path.rglob("*") if found.is_file())
    return digest_json({found.relative_to(path).as_posix(): _digest(found) for found in files})


def _digest(path: Path) -> str:
    facts = path.stat()
    return _digest_as_it_is(path, facts.st_ino, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _digest_as_it_is(path: Path, inode: int, size: int, changed: int) -> str:
    """A command checks before it begins and again before a worker starts; gigabytes are read once."""
    return digest_file(path)


def checked(where: str, file: MetricFile) -> str:
    """The file's sha256. Raises UserError where it is not there or has another one than named."""
    if not file.path.exists():
        raise UserError(f"{where}: {file.path} does not exist; set it again with `rrg metrics files {where}=PATH`")
    try:
        found = digest_path(file.path)
    except OSError as error:
        raise UserError(f"{where}: {file.path} cannot be read ({error.strerror})") from None
    if file.sha256 and found != file.sha256:
        raise UserError(
            f"{where}: {file.path} has sha256 {found}, not {file.sha256}: another file, or a damaged one; fetch it again, or "
            f"accept it with `rrg metrics files {where}={file.path}`"
        )
    return found


def remembered(name: str) -> dict[str, MetricFile]:
    """What `files.json` has for a metric: key → file. Raises UserError where the file is damaged."""
    path = _record(name)
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_bytes())
        return {str(key): MetricFile(Path(value["path"]), str(value["sha256"])) for key, value in record.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: is damaged; delete it and set the paths again with `rrg metrics files`") from None


def remember(name: str, files: dict[str, MetricFile]) -> dict[str, str]:
    """Check files and keep their paths and digests; the digests. Raises UserError as `checked`, or where it cannot be written."""
    digests = {key: checked(f"{name}.{key}", file) for key, file in files.items()}
    known = {key: {"path": str(file.path), "sha256": file.sha256} for key, file in remembered(name).items()}
    record = known | {key: {"path": str(file.path.resolve()), "sha256": digests[key]} for key, file in files.items()}
    path = _record(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(record, indent=1).encode())
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); set RRG_METRICS to another folder") from None
    return digests


def files_of(name: str, given: dict[str, MetricFile]) -> tuple[dict[str, MetricFile], list[str]]:
    """The metric's files, those `given` before those remembered, and the keys that have none."""
    known = {**remembered(name), **given}
    return {key: known[key] for key in METRICS[name].files if key in known}, [
        key for key in METRICS[name].files if key not in known
    ]


def _record(name: str) -> Path:
    return metrics_root() / name / "files.json"
