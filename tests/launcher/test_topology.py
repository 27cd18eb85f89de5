"""Where a node stands, read from the variables of schedulers and launchers."""

import itertools
import sys

import pytest

from launcher.topology import counts, hosts, job_port, launch, topology
from rrg.errors import UserError

SLURM = {
    "SLURM_JOB_ID": "123456",
    "SLURM_NODEID": "2",
    "SLURM_JOB_NODELIST": "gpu[08-10],big7",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[08-10]",
    "SLURM_STEP_TASKS_PER_NODE": "1(x3)",
    "SLURM_GPUS_ON_NODE": "8",
}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("node1", "node1"),
        ("node[1-3,7]", "node1 node2 node3 node7"),
        ("node[1-3,7],login,a[09-11]b", "node1 node2 node3 node7 login a09b a10b a11b"),
        ("r[1-2]n[01-02]", "r1n01 r1n02 r2n01 r2n02"),
        ("r1-n[098-101]", "r1-n098 r1-n099 r1-n100 r1-n101"),
        ("10.0.0.1,host.example.org", "10.0.0.1 host.example.org"),
    ],
)
def test_host_lists(text, names):
    assert hosts(text) == tuple(names.split())


@pytest.mark.parametrize("text", ["", ",", "node[", "node[1-]", "node[-3]", "node[a-b]", "a b", "node]1[", "x,,y", "n[3-1]"])
def test_what_is_no_host_list(text):
    with pytest.raises(UserError, match="host list"):
        hosts(text)


def test_counts():
    assert counts("2(x3),1") == (2, 2, 2, 1)
    with pytest.raises(UserError, match="list of numbers"):
        counts("2(3)")


def test_slurm_step():
    found = topology(SLURM)
    assert found.nodes == ("gpu08", "gpu09", "gpu10") and found.name == "gpu10" and found.address == "gpu08"
    assert (found.node, found.processes, found.world, found.source) == (2, 8, 24, "Slurm")
    assert found.port == topology({**SLURM, "SLURM_NODEID": "0"}).port == job_port(123456)
    assert topology({**SLURM, "RRG_PORT": "2222"}).port == 2222
    assert topology({**SLURM, "CUDA_VISIBLE_DEVICES": "0,3"}).processes == 2
    assert topology({**SLURM, "CUDA_VISIBLE_DEVICES": "0,3", "RRG_PROCESSES_PER_NODE": "5"}).processes == 5
    assert topology({**SLURM, "SLURM_GPUS_ON_NODE": "", "CUDA_VISIBLE_DEVICES": "NoDevFiles"}).processes == 1


def test_ports_stay_in_their_range_and_differ_between_steps_and_neighbours():
    ports = [job_port(job, step) for job in range(1, 3000, 7) for step in (0, 1, 2)]
    assert all(15000 <= port < 31000 for port in (*ports, job_port(2**31, 10**6)))
    assert len(set(ports)) == len(ports)


def test_slurm_mistakes():
    for changed, says in (
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x3)"}, "--ntasks-per-node=1"),
        ({"SLURM_NODEID": "3"}, "SLURM_NODEID: 3 is no node of 3"),
        ({"SLURM_NODEID": "x"}, "SLURM_NODEID: 'x' is not a whole number"),
        ({"RRG_PROCESSES_PER_NODE": "0"}, "RRG_PROCESSES_PER_NODE: 0 is below 1"),
        ({"RRG_PORT": "http"}, "RRG_PORT: 'http'"),
        ({"SLURM_STEP_NODELIST": "gpu[8-"}, "host list"),
    ):
        with pytest.raises(UserError, match=".*".join(says.split())):
            topology({**SLURM, **changed})
    alone = {name: SLURM[name] for name in ("SLURM_JOB_ID", "SLURM_NODEID")}
    with pytest.raises(UserError, match="SLURM_JOB_NODELIST is not set"):
        topology(alone)


def test_processes_that_torchrun_or_accelerate_started():
    found = topology(
        {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "7"}
    )
    assert (len(found.nodes), found.node, found.processes, found.address, found.port) == (2, 1, 4, "a", 7)
    with pytest.raises(UserError, match="no multiple"):
        topology({"WORLD_SIZE": "7", "LOCAL_WORLD_SIZE": "4"})


def test_another_scheduler_and_one_machine():
    found = topology({"RRG_NODES": "a[1-2]", "RRG_NODE": "1", "RRG_PROCESSES_PER_NODE": "2"})
    assert (found.name, found.world, found.port) == ("a2", 4, 29500)
    with pytest.raises(UserError, match="RRG_NODE"):
        topology({"RRG_NODES": "a[1-2]"})
    assert topology({}).world == 1 and topology({}).source == "one machine"


def test_the_launch_of_a_node():
    words = launch(topology(SLURM), {})
    assert words[:3] == [sys.executable, "-m", "accelerate.commands.launch"] and "--multi_gpu" in words
    pairs = dict(itertools.pairwise(words))
    assert (pairs["--num_machines"], pairs["--num_processes"], pairs["--machine_rank"]) == ("3", "24", "2")
    assert (pairs["--main_process_ip"], pairs["--main_process_port"]) == ("gpu08", str(job_port(123456)))
    assert "--main_process_ip" not in launch(topology({"RRG_PROCESSES_PER_NODE": "2"}), {})
