"""What several nodes measured becomes one line for each problem, with the node named."""

import itertools

import pytest

from rrg.preflight.compatibility import fits, ranges
from rrg.preflight.finding import BAD, WARNING, Finding
from rrg.preflight.judge import judge
from rrg.preflight.links import Links, rounds
from rrg.preflight.machine import Facts, Wishes
from rrg.preflight.meeting import Report

WISHES = Wishes()


def facts(count, **changed):
    """Equal nodes, but for `n1=dict(...)`."""
    return {node: Facts(f"n{node}", **{"versions": "v", "shards": "s", **changed.get(f"n{node}", {})}) for node in range(count)}


def ring(count, **speeds):
    """Links at 10 GB/s, but for those of `l0_1=…`."""
    links = {node: Links(all_reduce=10.0) for node in range(count)}
    for one, other in itertools.chain(*rounds(count)):
        speed = speeds.get(f"l{one}_{other}", speeds.get(f"l{other}_{one}", 10.0))
        links[one].pairs[other] = links[other].pairs[one] = speed
    return links


def told(facts_, links, silent=(), wishes=WISHES):
    names = [f"n{node}" for node in range(len(facts_))]
    return {(f.node, f.check, f.grade) for f in judge(names, facts_, links, list(range(len(facts_))), wishes, silent)}


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 17])
def test_every_link_of_the_ring_once_and_no_node_twice_at_a_time(count):
    edges = [frozenset(pair) for pairs in rounds(count) for pair in pairs]
    assert len(edges) == len(set(edges)) == (1 if count == 2 else count) and len(rounds(count)) <= 3
    for pairs in rounds(count):
        nodes = list(itertools.chain(*pairs))
        assert len(nodes) == len(set(nodes))
    assert rounds(1) == []


def test_nothing_wrong():
    assert told(facts(4), ring(4)) == set()


def test_slow_and_dead_nodes_are_told_from_links():
    assert told(facts(5), ring(5, l1_2=2.0, l2_3=1.0)) == {("n2", "links", WARNING)}
    assert told(facts(5), ring(5, l1_2=2.0)) == {("n1-n2", "links", WARNING)}
    assert told(facts(5), ring(5, l1_2=None, l2_3=None)) == {("n2", "links", BAD)}
    assert told(facts(5), ring(5, l1_2=None)) == {("n1-n2", "links", BAD)}
    assert told(facts(3), ring(3, l1_2=1.0, l0_2=1.0)) == {("n2", "links", WARNING)}
    assert told(facts(2), ring(2, l0_1=None)) == {("n0-n1", "links", BAD)}
    assert told(facts(2), ring(2, l0_1=0.1)) == set()  # nothing to compare with
    assert told(facts(2), ring(2, l0_1=0.1), wishes=Wishes(least_gbps=1.0)) == {("n0-n1", "links", BAD)}


def test_a_silent_node_is_told_once():
    links = ring(4, l1_2=None, l2_3=None)
    del links[2]
    assert told(facts(4), links, silent=[2]) == set()  # the meeting itself says that it stopped answering


def test_nodes_that_differ():
    assert told(facts(3, n1={"versions": "w"}), ring(3)) == {("n1", "versions", BAD)}
    assert told(facts(3, n2={"shards": "t"}), ring(3)) == {("n2", "shards", BAD)}
    gpus = {f"n{node}": {"devices": ["A"] * 4, "compute": 100.0} for node in range(3)}
    assert told(facts(3, **gpus), ring(3)) == set()
    assert told(facts(3, **{**gpus, "n0": {"devices": ["A"] * 3, "compute": 99.0}}), ring(3)) == {("n0", "devices", BAD)}
    assert told(facts(3, **{**gpus, "n0": {"devices": ["B"] * 4, "compute": 20.0}}), ring(3)) == {("n0", "devices", WARNING)}
    assert told(facts(3, n1={"write": 3.0}), ring(3)) == {("n1", "disk", WARNING)}


def test_exit_codes():
    def code(*findings):
        return Report(("n0",), findings=list(findings)).code

    warning, mine, its = Finding("a", "disk", "x", WARNING), Finding("a", "disk", "x"), Finding("a", "links", "x", setting=False)
    assert (code(), code(warning), code(mine, warning), code(its), code(mine, its)) == (0, 0, 2, 1, 1)
    assert mine.line() == "BAD a disk: x"


def test_the_table_of_versions():
    assert {"torch", "transformers", "numpy"} <= set(ranges())
    assert all(fit.ok for fit in fits(ranges()) if fit.package in ("torch", "transformers", "accelerate", "peft"))
    there = {"torch": "2.13.0+cpu", "triton": "3.9.0", "numpy": "1.26.4"}
    found = {fit.package: fit for fit in fits({"torch": ">=2.11,<2.15", "numpy": ">=2,<3"}, there.get)}
    assert found["torch"].ok
    assert found["numpy"].advice == "pip install 'numpy>=2,<3'"
    assert found["triton"].advice.startswith("pip install 'triton>=3.7,<3.8' beside torch 2.13.0+cpu: ")
    assert found["peft"].version is None and found["peft"].advice == "pip install 'peft'"
