"""Several nodes, each a process: all well, one that hangs, one that never comes, a port that is taken."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from rrg.errors import UserError
from rrg.preflight.machine import Wishes
from rrg.preflight.meeting import check
from rrg.preflight.topology import Topology
from tests.ports import free_port
from tests.processes import _CONTEXT, SECONDS, until
from tests.refusal import call, refused

NAMES = ("localhost", "127.0.0.1", "127.0.0.2")


def node(number, port, folder, wishes, inject):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if inject is not None:
        inject()
    try:
        report = check(Topology(NAMES, number, 1, port, "test"), wishes)
        text = "" if report is None else json.dumps(report.record())
    except UserError as error:
        text = f"mistake: {error}"
    Path(folder, str(number)).write_text(text)
    os._exit(0)


def meet(folder, wishes, inject=None, hangs=()):
    """The report of three nodes, of which some hang."""
    port, inject = free_port(), inject or {}
    processes = [
        _CONTEXT.Process(target=node, args=(number, port, str(folder), wishes.get(number, wishes[0]), inject.get(number)))
        for number in range(3)
    ]
    for process in processes:
        process.start()
    ended = [process for number, process in enumerate(processes) if number not in hangs]
    for process in ended:
        process.join(SECONDS)
    codes = [process.exitcode for process in ended]
    for process in processes:
        process.kill()
    assert codes == [0] * len(ended)
    return json.loads((folder / "0").read_text())


@pytest.mark.multiprocess
def test_all_well_with_every_link_measured(drawn_shards, tmp_path):
    wishes = Wishes(output=str(tmp_path / "runs" / "a"), shards=str(drawn_shards), size=2**20, seconds=600)
    report = meet(tmp_path, {0: wishes})
    assert report["code"] == 0 and [f for f in report["findings"] if f["grade"] == "bad"] == []
    assert sorted(report["facts"]) == ["0", "1", "2"] and not (tmp_path / "runs").exists()
    assert all(facts["write"] > 0 and facts["read"] > 0 and facts["shards"] for facts in report["facts"].values())
    for number, links in report["links"].items():
        assert sorted(links["pairs"]) == sorted(set("012") - {number}) and links["all_reduce"] > 0
        assert all(speed > 0 for speed in links["pairs"].values())


def wait_until_the_third_hangs():
    """On the first node: it is given up a second after it began to hang and the others came, however slow they are."""
    from rrg.preflight import meeting

    gathered = meeting._gathered

    def patient(store, what, nodes, deadline):
        if what == "facts":
            until(lambda: store.check(["facts/0", "facts/1", "at/2"]) and store.get("at/2") == b"shards")
            deadline = time.monotonic() + 1
        return gathered(store, what, nodes, deadline)

    meeting._gathered = patient


@pytest.mark.multiprocess
def test_a_node_whose_disk_hangs_is_named_with_what_it_was_doing(drawn_shards, tmp_path):
    hanging = tmp_path / "hanging"
    hanging.mkdir()
    os.mkfifo(hanging / "manifest.json")
    wishes = {number: Wishes(shards=str(drawn_shards), size=2**16, seconds=600) for number in range(2)}
    wishes[2] = Wishes(shards=str(hanging), size=2**16, seconds=600)
    report = meet(tmp_path, wishes, {0: wait_until_the_third_hangs}, hangs=(2,))
    assert report["code"] == 1
    bad = [finding for finding in report["findings"] if finding["grade"] == "bad"]
    assert [(f["node"], f["text"]) for f in bad] == [(NAMES[2], "did not come within 600 s; it was last at: shards")]
    assert report["links"]["0"]["pairs"]["1"] > 0 and sorted(report["links"]) == ["0", "1"]  # the others measured theirs


def freeze_before_links():
    """The machine freezes when it has joined the others."""
    from rrg.preflight import meeting

    meeting.measure = lambda *arguments: os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.multiprocess
@pytest.mark.slow
def test_a_node_that_freezes_while_links_are_measured(tmp_path):
    report = meet(tmp_path, {0: Wishes(size=2**16, seconds=12)}, {2: freeze_before_links}, hangs=(2,))
    assert report["code"] == 1
    assert NAMES[2] in {finding["node"] for finding in report["findings"] if finding["grade"] == "bad"}


def test_the_first_node_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"127.0.0.1: no answer from the first node localhost at port \d+ within 2 s"):
        check(Topology(NAMES, 1, 1, free_port(), "test"), Wishes(seconds=2))


def test_the_port_is_taken():
    with socket.socket() as held:
        held.bind(("", 0))
        held.listen()
        with pytest.raises(UserError, match=r"localhost: port \d+ cannot be opened .*; set RRG_PORT to a free one"):
            check(Topology(NAMES, 0, 1, held.getsockname()[1], "test"), Wishes(seconds=2))


def test_on_the_command_line(drawn_shards, tmp_path):
    words = ["--output", "runs/a", "--shards", drawn_shards, "--megabytes", 1, "--json", "all.json"]
    (found,) = call(["preflight", *words], tmp_path)
    assert found.code == 0 and "preflight: 1 of 1 node(s)" in found.out
    assert json.loads((tmp_path / "all.json").read_text())["facts"]["0"]["free_gib"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["all.json"]
    (found,) = call(["preflight", "--shards", tmp_path / "no"], tmp_path)
    assert found.code == 2 and f"shards: no folder {tmp_path / 'no'}: write shards there" in found.out
    (found,) = call(["doctor", "--cluster", "--output", "runs/a", "--least-free", 1e9], tmp_path)
    assert found.code == 2 and "BAD localhost disk:" in found.out and "make room" in found.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seconds", "0"], "--seconds: 0 is not above 0"),
        (["--megabytes", "x"], "argument --megabytes: invalid float value: 'x'"),
        (["--slow", "2"], "--slow: 2 is no share between 0 and 1"),
        (["--json", "no/such/file.json"], "--json no/such/file.json: cannot be written (No such file or directory)"),
        (["--shard", "x", "--wrong"], "unrecognized arguments: --wrong"),
    ],
)
def test_mistakes(words, says, tmp_path):
    assert says in refused(["preflight", *words], tmp_path)
    assert list(tmp_path.iterdir()) == []
