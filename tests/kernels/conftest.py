"""Kernel tests: interpreted ones run in a child process, compiled ones need a process that does not interpret."""

import importlib.util
import os

import pytest

from tests.kernels.interpreter import Interpreter, interpreting, marked


def pytest_configure(config):
    config.addinivalue_line("markers", "interpreted: runs in a child pytest with TRITON_INTERPRET=1")
    config.addinivalue_line("markers", "compiled: compiles ahead of time, in a process without TRITON_INTERPRET")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    if item.get_closest_marker("slow") is not None and os.environ.get("RRG_PROOF") != "all":
        pytest.skip("compiles or counts at full size, minutes each: RRG_PROOF=all runs it")
    triton_wanted = marked(item) or item.get_closest_marker("compiled") is not None
    if triton_wanted and importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if item.get_closest_marker("compiled") is not None and interpreting():
        pytest.skip("TRITON_INTERPRET is set: nothing is compiled in this process")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """The body of an interpreted test runs in the child; here only its outcome is told."""
    if not marked(pyfuncitem) or interpreting():
        return None
    config = pyfuncitem.config
    if not hasattr(config, "interpreter"):
        config.interpreter = Interpreter(config._tmp_path_factory.mktemp("interpreted"))
    outcome, words = config.interpreter.outcome(pyfuncitem)
    if outcome == "skipped":
        pytest.skip(words.strip().splitlines()[0] if words.strip() else "skipped in the interpreting child")
    if outcome == "failed":
        pytest.fail(words, pytrace=False)
    return True
