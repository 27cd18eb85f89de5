"""What several test modules share."""

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several busy processes with two threads each would slow one another down
ROOT = Path(__file__).resolve().parents[1]

# Drawn examples: the same in every run, however long one takes. RRG_DRAW=new draws others.
settings.register_profile(
    "rrg", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=os.environ.get("RRG_DRAW") != "new"
)
settings.load_profile("rrg")


@pytest.fixture(scope="session")
def drawn_shards(tmp_path_factory):
    """A folder of small drawn shards, for reading only."""
    from tests.synthetic import write_shards

    return write_shards(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="session")
def slurm_cluster():
    """A real Slurm cluster of four nodes on this machine, or that of SLURM_CONF: `tests.slurm.cluster.Cluster`."""
    from tests.slurm.cluster import started

    with started(4) as found:
        yield found


@pytest.fixture(scope="session")
def shared():
    """The folder of real inputs beside the repository; tests that need it skip where it is not."""
    folder = Path(os.environ.get("RRG_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real inputs at {folder} (set RRG_SHARED)")
    return folder


def pytest_configure(config):
    """Two workers take whole files (`--dist loadfile`), in the order below and not those with the most tests first."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config, items):
    """For several workers, files with slow tests come first: whoever takes the last file then keeps nobody waiting for long."""
    if not hasattr(config, "workerinput"):
        return
    slow = Counter(item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("multiprocess"))
    items.sort(key=lambda item: -slow[item.path])
