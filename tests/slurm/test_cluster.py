"""The cluster the other tests here run on is a real one: jobs, requeue, a node that dies."""

import pytest

from tests.slurm.cluster import started

pytestmark = pytest.mark.slurm


def test_jobs_run_on_several_nodes_and_outlive_a_dead_one(tmp_path):
    script = tmp_path / "job.sh"
    script.write_text('#!/bin/bash\nsrun hostname >"$OUT.$SLURM_RESTART_COUNT"\n[ "$SLURM_RESTART_COUNT" ] || sleep 60\nexit 3\n')
    with started(3) as cluster:
        # -N 2 on three nodes, so that one is left when one of the two dies
        number = cluster.submit("-N", 2, "-n", 2, "--requeue", "-o", tmp_path / "log", script, OUT=str(tmp_path / "hosts"))
        first = tmp_path / "hosts."
        cluster.until(lambda: first.exists() and len(first.read_text().split()) == 2, 60, "the first life of the job")
        assert set(first.read_text().split()) <= set(cluster.names)
        cluster.kill_node(first.read_text().split()[-1])
        ended = cluster.wait(number, 90)
        assert (ended.state, ended.code, ended.restarts) == ("FAILED", 3, 1)
        assert len((tmp_path / "hosts.1").read_text().split()) == 2
