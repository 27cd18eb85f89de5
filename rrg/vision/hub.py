"""From a model's name to a folder on this machine, without ever waiting for a network that is not there."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlparse

from rrg.errors import UserError

# Weights only as safetensors: the other files of a repository may hold pickles.
FILES = ("*.json", "*.safetensors", "*.safetensors.index.json", "*.txt", "*.model")
_TIMEOUT = 5.0  # seconds; the hub client itself retries a missing network for half a minute


def model_folder(name: str, setting: str, instead: str) -> Path:
    """The folder of `name`: a local path as it is, otherwise the hub's copy of this machine, otherwise a download.

    `setting` is the key the user wrote the name under and `instead` what to write where no network reaches the hub; both only
    serve the message. Raises UserError where there is no such folder and no way to get it.
    """
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(f"{setting}={name}: no folder with a config.json there, and no Hugging Face name; write {instead}")
    cached = _cached(name)
    return cached if cached is not None else _download(name, setting, instead)


def _cached(name: str) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):  # not there, or not a name the hub accepts: the download says which
        return None
    complete = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    return folder if complete else None


def _download(name: str, setting: str, instead: str) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "TRUE", "YES", "ON"}:
        raise UserError(f"{setting}={name}: not on this machine and HF_HUB_OFFLINE forbids the download; write {instead}")
    if not _reachable(constants.ENDPOINT):
        raise UserError(f"{setting}={name}: not on this machine and {constants.ENDPOINT} cannot be reached; write {instead}")
    try:
        folder = Path(snapshot_download(name, allow_patterns=list(FILES), etag_timeout=_TIMEOUT))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{setting}={name}: cannot be downloaded ({reason}); write {instead}") from None
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{setting}={name}: holds no safetensors weights (others are not loaded); convert it and write its path")
    return folder


def _reachable(endpoint: str) -> bool:
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True  # only the proxy can tell
    address = urlparse(endpoint)
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=_TIMEOUT).close()
    except OSError:
        return False
    return True
