"""A base that three processes load and shard: none of them ever holds a copy of its own."""

import json
from pathlib import Path

import pytest

from tests.processes import on_ranks
from tests.strategy.ranks import free_port
from tests.strategy.sharded_load import load_on_a_rank

pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a random Llama of about 60 MB and a tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rrg.language.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("base") / "llama"
    tokenizer = train_tokenizer("word", ["the heart is normal in size ."] * 3, "{image} report :", min_count=1, vocabulary=300)
    shape = dict(hidden_size=512, intermediate_size=1280, num_hidden_layers=5, num_attention_heads=8, num_key_value_heads=8)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("strategy", ["zero3", "fsdp2"])
def test_no_process_holds_a_copy_of_the_base(drawn_shards, base, tmp_path, strategy):
    on_ranks(load_on_a_rank, 3, free_port(), strategy, str(drawn_shards), str(base), str(tmp_path), seconds=400)
    total = sum(path.stat().st_size for path in Path(base).glob("*.safetensors"))
    for rank in range(3):
        told = json.loads((tmp_path / f"{rank}.json").read_text())
        assert total / 3 * 0.95 < told["frozen_here"] < total / 3 * 1.1
        # Private memory: pages of the weight file are shared by all processes and may be dropped at any time.
        assert told["peak"] < 0.75 * total, told
        assert told["after"] < 0.6 * total, told
