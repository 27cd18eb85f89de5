"""JSON files written by others: read whole, refused in words, and never quoted, since they hold report text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rrg.errors import UserError


def read_json(path: Path, what: str) -> Any:
    """The value of a JSON file. Raises UserError where it is missing, not UTF-8 or not JSON."""
    return _parse(_decoded(path, what), str(path))


def read_json_lines(path: Path, what: str) -> Iterator[tuple[str, Any]]:
    """("file:line", value) for each line that is not blank. Raises UserError as `read_json`."""
    # Not splitlines(): that would cut at U+2028 inside a string.
    for number, line in enumerate(_decoded(path, what).split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", _parse(line, f"{path}:{number}")


def _decoded(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(f"no {what} file {path}: give the path of an existing file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); is it the {what} file?") from None


def _parse(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}, line {error.lineno} column {error.colno})") from None
    except UnicodeEncodeError:
        raise UserError(f"{where}: a text holds half a character (a lone \\ud800-\\udfff escape); write it whole") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply to be such a file") from None
    return value
