"""A base in another dtype than that of its files: one converted copy for all processes, of the same weights."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from rrg.language import converted
from rrg.language.tokenizer import train_tokenizer
from tests.language.converted_ranks import read_converted
from tests.processes import on_ranks
from tests.strategy.ranks import free_port


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A Llama of 24 MB in float32, in several files."""
    folder = tmp_path_factory.mktemp("base") / "llm"
    words = train_tokenizer("word", ["the heart is large ."], "report :", min_count=1, vocabulary=0)
    torch.manual_seed(1)
    sizes = {"hidden_size": 256, "intermediate_size": 700, "num_hidden_layers": 8, "num_attention_heads": 2}
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(words), eos_token_id=2, **sizes))
    model.generation_config.temperature = 0.7
    model.generation_config.do_sample = True
    model.save_pretrained(folder, max_shard_size="9MB")
    words.save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.mark.multiprocess
def test_processes_read_one_converted_copy(base, tmp_path):
    on_ranks(read_converted, 2, free_port(), str(base), str(tmp_path / "cache"), "same")
    (made,) = (path for path in (tmp_path / "cache" / "converted").iterdir() if path.is_dir())
    held, source = (sum(file.stat().st_size for file in folder.glob("*.safetensors")) for folder in (made, base))
    assert held == pytest.approx(source / 2, rel=0.01)


@pytest.mark.multiprocess
def test_a_cache_that_cannot_be_written_is_told_in_one_line(base, tmp_path):
    (tmp_path / "file").write_text("")
    on_ranks(read_converted, 2, free_port(), str(base), str(tmp_path / "file"), "refused")


def test_without_room_nothing_is_left(base, tmp_path, monkeypatch):
    monkeypatch.setenv("RRG_CACHE", str(tmp_path))
    files = sorted(base.glob("*.safetensors"))
    with pytest.raises(converted.UserError, match=r"language\.dtype: .* GB are needed, .* GB are free\); set RRG_CACHE"):
        converted._converted(files, 10**18, "bfloat16")
    assert [path.name for path in (tmp_path / "converted").iterdir() if path.is_dir()] == []


def test_a_process_alone_reads_the_files_themselves(base):
    assert converted.shared_weights(str(base), AutoConfig.from_pretrained(base), "bfloat16") == str(base)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_tensors_of_every_kind_and_shape(tmp_path, dtype):
    drawn = torch.Generator().manual_seed(0)
    tensors = {
        "matrix": torch.randn(3, 5, generator=drawn),
        "scalar": torch.tensor(2.5),
        "whole numbers": torch.arange(7),
        "flags": torch.tensor([True, False, True]),
        "half": torch.randn(4, generator=drawn).half(),
        "double": torch.randn(2, 2, generator=drawn).double(),
        "empty": torch.zeros(0, 3),
    }
    save_file(tensors, tmp_path / "source.safetensors")
    converted._write(tmp_path / "source.safetensors", tmp_path / "target.safetensors", dtype)
    found = load_file(tmp_path / "target.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        wanted = tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor
        assert found[name].dtype == wanted.dtype and torch.equal(found[name], wanted), name
