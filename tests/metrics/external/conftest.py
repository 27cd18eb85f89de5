"""A tiny random CheXbert in the published layout, stand-in workers of the same protocol, and a metrics folder of one's own."""

from __future__ import annotations

import queue
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rrg.metrics.external import worker
from rrg.metrics.external.supervisor import StudyTexts
from rrg.metrics.external.worker import Command

WORDS = (
    "no acute disease pleural effusion pneumothorax cardiomegaly edema the heart is normal lungs are clear left right small . ,"
)
TEXTS = [
    StudyTexts(f"s{number}", generated, reference)
    for number, (generated, reference) in enumerate(
        [
            ("no pleural effusion .", "the lungs are clear ."),
            ("", "small left pleural effusion"),
            ("cardiomegaly, édème — 心臓 😀", "the heart is normal"),
            ("no acute disease", ""),
            ("lungs are clear\n\n no edema", "lungs are clear"),
        ]
    )
]


@pytest.fixture(autouse=True)
def metrics_folder(tmp_path, monkeypatch) -> Path:
    """RRG_METRICS of this test."""
    monkeypatch.setenv("RRG_METRICS", str(tmp_path / "metrics"))
    return tmp_path / "metrics"


def write_vocabulary(folder: Path) -> Path:
    """vocab.txt of BERT's form."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *WORDS.split()]
    path = folder / "vocab.txt"
    path.write_text("\n".join(dict.fromkeys(pieces)) + "\n")
    return path


def tiny_bert(vocabulary: Path, hidden: int = 32, seed: int = 0):
    """A random BERT with the vocabulary's number of words."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    count = len(vocabulary.read_text().splitlines())
    sizes = {"hidden_size": hidden, "intermediate_size": 48, "num_hidden_layers": 2, "max_position_embeddings": 64}
    return BertModel(BertConfig(vocab_size=count, num_attention_heads=max(1, hidden // 64), **sizes)).eval()


@pytest.fixture(scope="session")
def chexbert(tmp_path_factory) -> dict[str, Path]:
    """`weights` as published (a dict of epoch, model_state_dict with `module.` names, optimizer_state_dict) and `vocab`."""
    import torch

    folder = tmp_path_factory.mktemp("chexbert")
    vocabulary = write_vocabulary(folder)
    bert = tiny_bert(vocabulary)
    heads = [torch.nn.Linear(32, 4 if number < 13 else 2) for number in range(14)]
    state = {f"module.bert.{name}": value for name, value in bert.state_dict().items()}
    state["module.bert.embeddings.position_ids"] = torch.arange(64)[None]
    for number, head in enumerate(heads):
        torch.nn.init.normal_(head.weight, std=2.0)
        state |= {f"module.linear_heads.{number}.{name}": value for name, value in head.state_dict().items()}
    torch.save({"epoch": 8, "model_state_dict": state, "optimizer_state_dict": {"state": {}}}, folder / "chexbert.pth")
    return {"weights": folder / "chexbert.pth", "vocab": vocabulary}


STAND_IN = """
import json, os, sys, time
settings = json.loads(sys.stdin.readline())
def say(record):
    sys.stdout.write(json.dumps(record) + "\\n")
    sys.stdout.flush()
starts = os.path.join(settings["folder"], "starts")
with open(starts, "a") as file:
    file.write("x")
start = os.path.getsize(starts)
def score(study):
    return {"score": float(len(study["generated"]) + 100 * len(study["reference"]))}
"""
SERVE = """
say({"ready": {"versions": {"stand-in": "1"}}})
for line in sys.stdin:
    batch = json.loads(line)["batch"]
    for study in batch:
        act(study)
    say({"done": len(batch)})
"""


@pytest.fixture
def stand_in(tmp_path):
    """`stand_in(code, ...)`: a command whose worker runs `code`, which may use say, score, start (1, 2, …) and settings.

    `code` that defines act(study) is served; other code is the whole worker.
    """

    def make(code: str, start_seconds: float = 900.0, answer_seconds: float = 900.0) -> Command:
        script = tmp_path / "stand_in.py"
        script.write_text(STAND_IN + code + (SERVE if "def act(" in code else ""))
        settings = {"folder": str(tmp_path)}
        return Command(Path(sys.executable), script, settings, start_seconds, answer_seconds)

    return make


@pytest.fixture
def silent_from(monkeypatch):
    """`silent_from(path)`: the patience with a worker that is silent counts from when it has written that file.

    A worker that is only slow is waited for, so that a short patience can be tried on a busy machine.
    """

    def count_from(path: Path) -> None:
        class Lines(queue.Queue):
            def get(self, block=True, timeout=None):
                while not path.exists():
                    with suppress(queue.Empty):
                        return super().get(timeout=0.02)
                try:
                    return super().get(timeout=timeout)
                except queue.Empty:
                    path.unlink()  # the worker is ended now, and the next one has not fallen silent yet
                    raise

        send = worker.Worker._send

        def send_with_patience(self, record):
            impatient, self.command = self.command, replace(self.command, answer_seconds=900.0)
            try:
                send(self, record)
            finally:
                self.command = impatient

        monkeypatch.setattr(worker, "queue", SimpleNamespace(Queue=Lines, Empty=queue.Empty))
        monkeypatch.setattr(worker.Worker, "_send", send_with_patience)

    return count_from


@pytest.fixture
def bare_venv(tmp_path):
    """`bare_venv({"package": code})`: an interpreter of its own that has just these packages (and no pip)."""
    import subprocess

    def make(packages: dict[str, str]) -> Path:
        folder = tmp_path / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        for name, code in packages.items():
            path = site.joinpath(*name.split(".")) / "__init__.py"
            path.parent.mkdir(parents=True)
            path.write_text(code)
        return folder / "bin" / "python"

    return make
