"""The filter in a real browser, from file://, with the address as the only input."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rrg.view.page import render

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (chromium, google-chrome) on PATH"),
]


def browse(page: Path, address: str, profile: Path) -> tuple[list[str], str, str]:
    """Studies that are visible, the whole document after its scripts ran, and what the browser logged."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--dump-dom", f"{page.as_uri()}#{address}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=True)
    articles = re.findall(r"<article([^>]*)>", done.stdout)
    visible = [tag for tag in articles if not re.search(r"\shidden(=|\s|$)", tag)]
    return [re.search(r'data-study="([^"]*)"', tag).group(1) for tag in visible], done.stdout, done.stderr  # type: ignore[union-attr]


@pytest.fixture
def page(run: Path) -> Path:
    path = run / "report.html"
    path.write_text(render(run), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("address", "studies"),
    [
        ("", ["S1_a", "S2_b", "S3_c", "S4_d", "S5_e"]),
        ("reports", ["S1_a", "S2_b", "S3_c", "S4_d", "S5_e"]),
        ("finding=Cardiomegaly", ["S2_b", "S5_e"]),
        ("finding=Pleural+Effusion&agreement=invented", ["S3_c"]),
        ("agreement=correct", ["S1_a", "S4_d"]),
        ("study=s5", ["S5_e"]),
        ("study=nobody", []),
    ],
)
def test_filter_from_the_address(page: Path, tmp_path: Path, address: str, studies: list[str]):
    shown, document, log = browse(page, address, tmp_path / "profile")
    assert shown == studies
    assert f"{len(studies)} of 5 shown" in document
    assert "Content Security Policy" not in log, log
    assert "Uncaught" not in log, log
