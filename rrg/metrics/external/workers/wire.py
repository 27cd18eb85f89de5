"""The worker's end of the protocol: JSON lines on standard input and output.

Runs under the interpreter of a metric's environment (Python 3.9 or later), so it uses the standard library only. Whatever a
library prints goes to standard error; standard output carries the protocol and nothing else. No exception's message leaves the
process: it may quote a report.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

Study = dict[str, Any]
Answer = tuple[int, dict[str, Any]]
Answers = Callable[[list[Study]], Iterable[Answer]]

# What a package may raise over one study without its process being unsound; anything else ends the worker.
FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class Refused(Exception):  # noqa: N818 (a state of the machine or the files, not an error)
    """The worker cannot do its work here; the message (which holds no report text) is the reason a user is given."""


def serve(start: Callable[[dict[str, Any]], Answers], packages: Iterable[str]) -> None:
    """Read settings, answer batches until the input ends.

    `start(settings)` loads the model and returns a function from a batch to answers (`answered`, `failed`), one per study, as
    soon as each is known. `packages` are those whose versions a score depends on.
    """
    sys.excepthook = lambda kind, error, trace: log_failure(error)
    lines = sys.stdin.buffer
    out = _take_standard_output()
    settings = json.loads(lines.readline())
    if not settings.get("allow_download"):
        _forbid_network()
    try:
        answers = start(settings)
    except Refused as reason:
        _say(out, {"refused": str(reason)})
        return
    except ImportError as error:
        _say(out, {"refused": f"package {error.name!r} cannot be imported in this environment"})
        return
    _say(out, {"ready": {"versions": _versions(packages)}})
    for line in lines:
        batch = json.loads(line)["batch"]
        count = 0
        for study, answer in answers(batch):
            _say(out, dict(answer, id=study))
            count += 1
        _say(out, {"done": count})


def answered(study: Study, result: dict[str, Any]) -> Answer:
    """What the metric says of a study."""
    return study["id"], {"result": result}


def failed(study: Study, reason: str) -> Answer:
    """A study without a score; `reason` holds no report text."""
    return study["id"], {"error": reason}


def one_by_one(score: Callable[[Study], dict[str, Any]]) -> Answers:
    """Answers of a metric that takes one study at a time; a study whose computation raises has failed, the others go on."""

    def answers(batch: list[Study]) -> Iterator[Answer]:
        for study in batch:
            try:
                yield answered(study, score(study))
            except Refused as reason:
                yield failed(study, str(reason))
            except FAULTS as error:
                log_failure(error)
                yield failed(study, type(error).__name__)

    return answers


def log_failure(error: BaseException) -> None:
    """Where an exception was raised, without its message."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    sys.stderr.write(f"{type(error).__name__} at {places}\n")
    sys.stderr.flush()


def existing(settings: dict[str, Any], key: str) -> str:
    """The path that the settings give for `key`. Raises Refused where there is none."""
    path = settings.get("files", {}).get(key, "")
    if not path or not Path(path).exists():
        raise Refused(f"no file is named for {key!r}")
    return str(path)


def _say(out: Any, record: dict[str, Any]) -> None:
    out.write(json.dumps(record).encode() + b"\n")
    out.flush()


def _take_standard_output() -> Any:
    """The protocol's own copy of standard output; what others write to descriptor 1 from now on goes to standard error."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return out


def _forbid_network() -> None:
    """Connections out of this process and look-ups of names raise, whatever a library's own offline switch does."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.getaddrinfo" or (event == "socket.connect" and not isinstance(arguments[1], (str, bytes))):
            raise PermissionError("the network is not allowed here")

    sys.addaudithook(refuse)


def _versions(packages: Iterable[str]) -> dict[str, str]:
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
