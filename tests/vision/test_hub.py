"""Names that are no folder: never a wait for a network, always what to write instead."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from rrg.errors import UserError
from rrg.vision import hub


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert hub.model_folder(str(tmp_path), "vision.name", "a path") == tmp_path


@pytest.mark.parametrize("name", ["/no/such/folder", "./x", "~/no_such", "swin", "a/b/c", ""])
def test_what_is_neither_folder_nor_name(name: str) -> None:
    with pytest.raises(UserError, match=r"vision\.name=.*write a path"):
        hub.model_folder(name, "vision.name", "a path")


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        hub.model_folder(str(tmp_path), "vision.name", "a path")


def test_offline_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        hub.model_folder("rrg-tests/none-such", "vision.name", "a path")


def test_an_unreachable_hub_is_found_out_before_the_client_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed port of this machine stands for the hub."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        for name in ("HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy"):
            monkeypatch.delenv(name, raising=False)
        with pytest.raises(UserError, match="cannot be reached; write a path"):
            hub.model_folder("rrg-tests/none-such", "vision.name", "a path")


def test_what_the_machine_has_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub client's own cache layout, filled by hand."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    revision = "0" * 40
    folder = tmp_path / "models--rrg-tests--here" / "snapshots" / revision
    folder.mkdir(parents=True)
    (tmp_path / "models--rrg-tests--here" / "refs").mkdir()
    (tmp_path / "models--rrg-tests--here" / "refs" / "main").write_text(revision)
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError):
        hub.model_folder("rrg-tests/here", "vision.name", "a path")
    (folder / "model.safetensors").write_bytes(b"")
    assert hub.model_folder("rrg-tests/here", "vision.name", "a path") == folder
