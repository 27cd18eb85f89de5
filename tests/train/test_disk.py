"""A disk that fills up during a run, at any point: one line, what was whole stays whole, and with room the run carries on."""

import subprocess

import pytest

from tests.refusal import call, refused

STEPS = 4
NAMES = ("trainable.safetensors", "optimizer.safetensors", "state.json")
QUICK = ["data.workers=0", "train.threads=1", f"train.max_steps={STEPS}", "train.checkpoint_every=1", "train.keep=9"]
SHORT = ["generate.num_beams=1", "generate.min_new_tokens=2", "generate.max_new_tokens=4"]


def mount(folder, size, *options):
    return subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}k", *options]), "tmpfs", folder], capture_output=True
    )


@pytest.fixture
def disk(tmp_path):
    """A function that makes the disk at a folder so many kilobytes large."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        done = mount(folder, 4)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode:
        pytest.skip("a small disk cannot be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", folder], check=True)


def train(shards, output):
    return ["train", "tiny/r2gengpt_delta_iu", f"data.shards={shards}", f"output={output}", *QUICK, *SHORT]


@pytest.mark.slow
def test_the_same_command_carries_on_whenever_there_is_more_room(disk, drawn_shards, tmp_path):
    assert call(train(drawn_shards, tmp_path / "whole"), tmp_path)[0].code == 0
    said = []
    for size in (4, 16, 40, 96):
        assert not mount(disk, size, "remount").returncode
        said.append(refused(train(drawn_shards, disk / "run"), tmp_path, talks=True))
        assert "No space left" in said[-1] and str(disk) in said[-1]
        for folder in (disk / "run").glob("checkpoints/step_*"):
            whole = tmp_path / "whole" / "checkpoints" / folder.name
            assert (folder / NAMES[0]).read_bytes() == (whole / NAMES[0]).read_bytes()
    assert any("step_00000001: cannot be written" in line for line in said)
    assert any("earlier checkpoints are intact" in line for line in said)
    mount(disk, 10_000, "remount")
    assert call(train(drawn_shards, disk / "run"), tmp_path)[0].code == 0
    for name in NAMES:
        ours, whole = (root / "checkpoints" / f"step_{STEPS:08d}" / name for root in (disk / "run", tmp_path / "whole"))
        assert ours.read_bytes() == whole.read_bytes()
    used = sum(path.stat().st_size for path in (disk / "run").rglob("*")) // 1024
    mount(disk, used + 40, "remount")
    (disk / "filler").write_bytes(b"")
    with pytest.raises(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    line = refused(["generate", disk / "run"], tmp_path, talks=True)
    assert "No space left" in line and "predictions" in line
    (disk / "filler").unlink()
    assert call(["generate", disk / "run"], tmp_path)[0].code == 0
