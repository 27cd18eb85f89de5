"""Every file of configs/accelerate/: launched as it is on this machine's CPU, or, where it differs from a launched one in its
number of GPUs only, read by Accelerate's own class."""

import os
import signal
import subprocess
import sys

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from tests.multiprocess.test_strategies import starts
from tests.ports import free_port
from tests.processes import ROOT, events, until

FILES = ROOT / "configs" / "accelerate"
# file → (strategy, processes on each machine, machines). cpu_2.yaml: test_parity.py.
LAUNCHED = {
    "gpu_1": ("ddp", 1, 1),
    "zero2": ("zero2", 2, 1),
    "zero3": ("zero3", 2, 1),
    "fsdp2": ("fsdp2", 2, 1),
    "multi_node_zero3": ("zero3", 1, 2),
    "hsdp": ("hsdp", 2, 2),
}
SIZES = {"cpu_2": (2, 1), "gpu_1": (1, 1), "gpu_2": (2, 1), "gpu_4": (4, 1), "gpu_8": (8, 1), "fsdp2": (8, 1), "hsdp": (16, 2)}
SIZES |= {"zero2": (8, 1), "zero3": (8, 1), "multi_node": (16, 2), "multi_node_zero3": (16, 2)}


def test_accelerate_reads_every_file_as_its_name_says():
    assert sorted(SIZES) == sorted(path.stem for path in FILES.glob("*.yaml"))
    read = {name: load_config_from_file(str(FILES / f"{name}.yaml")).to_dict() for name in SIZES}
    for name, config in read.items():
        assert (config["num_processes"], config["num_machines"]) == SIZES[name]
        kind = "DEEPSPEED" if "zero" in name else "NO" if name == "gpu_1" else "MULTI_GPU"
        assert config["distributed_type"] == kind and not config["use_cpu"] and config.get("mixed_precision", "no") == "no"
        if "zero" in name:
            settings = config["deepspeed_config"]
            assert (ROOT / settings["deepspeed_config_file"]).is_file() and settings["zero3_init_flag"] is False
    # What these say beside a launched one: no more than numbers and the port.
    for name, like in (("gpu_2", "cpu_2"), ("gpu_4", "cpu_2"), ("gpu_8", "fsdp2"), ("multi_node", "hsdp")):
        ours, theirs = read[name], read[like]
        differs = {key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)}
        assert differs <= {"num_processes", "main_process_port"}, name


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("name", LAUNCHED)
def test_a_file_starts_what_it_says(drawn_shards, tmp_path, name):
    strategy, processes, machines = LAUNCHED[name]
    world = processes * machines
    settings = ["train.max_steps=1", "train.checkpoint_every=1", "train.validate_every=0", "train.batch_size=4"]
    settings += ["train.micro_batch_size=1", "train.threads=1", "data.workers=0", f"strategy={strategy}"]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", f"configs/accelerate/{name}.yaml"]
    if world > 1:
        command += ["--num_processes", str(world)]
    port, words = str(free_port()), [f"data.shards={drawn_shards}", f"output={tmp_path / 'run'}", *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    started = []
    for machine in range(machines):
        place = ["--machine_rank", str(machine), "--main_process_ip", "127.0.0.1"] if machines > 1 else []
        full = [*command, *place, "--main_process_port", port, "launcher/train.py", "tiny/r2gengpt_iu", *words]
        with (tmp_path / f"{machine}.log").open("w") as log:
            own = {"stdout": log, "stderr": log, "start_new_session": True}
            started.append(subprocess.Popen(full, cwd=ROOT, env=environment, **own))
    try:
        until(lambda: all(process.poll() == 0 for process in started) or any(process.poll() for process in started))
        codes = [process.poll() for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    said = "\n".join((tmp_path / f"{machine}.log").read_text()[-3000:] for machine in range(machines))
    assert codes == [0] * machines, said
    (record,) = starts(tmp_path / "run")
    assert (record["strategy"], record["world"], len(record["frozen_held"])) == (strategy, world, world)
    assert list(events(tmp_path / "run")) == [1] and (tmp_path / "run" / "done.json").exists()
    if strategy in ("zero3", "fsdp2", "hsdp"):
        assert all(held < 0.7 * record["frozen"] for held in record["frozen_held"]), record
