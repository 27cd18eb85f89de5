"""Tests that run Triton's interpreter.

A process either interprets kernels or compiles them: TRITON_INTERPRET has to be set before Triton is first imported. So a test
marked `@pytest.mark.interpreted` (usually a module's `pytestmark`) is collected here, but its body runs in a child pytest with
TRITON_INTERPRET=1: one child per module, started by the first of its tests, with all selected tests of that module. Each test
then reports its own outcome. Inside the child, or where TRITON_INTERPRET=1 was set by hand (for a debugger), bodies run as usual.

A test module must import `rrg_kernels.<kernel>.triton` inside its test functions or fixtures, never at its top.
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Interpreter:
    """Runs the marked tests of a module in a child and remembers how each of them ended."""

    def __init__(self, folder):
        self._folder = folder
        self._ends = {}

    def outcome(self, item):
        """(`passed`, `failed` or `skipped`, the child's words) of one test."""
        module = item.nodeid.partition("::")[0]
        if module not in self._ends:
            chosen = [other.nodeid for other in item.session.items if other.nodeid.startswith(f"{module}::") and marked(other)]
            self._ends[module] = self._run(chosen)
        return self._ends[module].get(item.name, ("failed", f"the child that interprets {module} never ran this test"))

    def _run(self, nodes):
        report = self._folder / f"{len(self._ends)}.xml"
        arguments = self._folder / f"{len(self._ends)}.txt"
        arguments.write_text("\n".join(nodes))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", f"@{arguments}"]
        environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if not report.exists():
            words = f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
            pytest.fail(f"the interpreting child ended with {done.returncode}:\n{words}", pytrace=False)
        return {case.get("name"): end(case) for case in ElementTree.parse(report).iter("testcase")}


def end(case):
    for kind, outcome in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = case.find(kind)
        if found is not None:
            return outcome, f"{found.get('message', '')}\n{found.text or ''}"
    return "passed", ""


def marked(item):
    return item.get_closest_marker("interpreted") is not None


def interpreting():
    return os.environ.get("TRITON_INTERPRET") == "1"
