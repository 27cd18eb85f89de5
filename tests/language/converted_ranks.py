"""One of two processes that read a base in another dtype than that of its files."""

from __future__ import annotations

import os
from pathlib import Path


def read_converted(rank, world, port, folder, cache, shape):
    """The model as loaded beside others is the one that a process alone would load; or, with `shape` refused, one line."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ.update(GLOO_SOCKET_IFNAME="lo", RRG_CACHE=cache)
    import torch
    import torch.distributed as dist
    from transformers import AutoConfig, AutoModelForCausalLM

    from rrg.config.context import BuildContext
    from rrg.config.schema import typed_part
    from rrg.errors import UserError
    from rrg.language.converted import shared_weights
    from rrg.language.family import LANGUAGE

    dist.init_process_group("gloo")
    config = AutoConfig.from_pretrained(folder)
    if shape == "refused":
        try:
            shared_weights(folder, config, "bfloat16")
        except UserError as error:
            assert "\n" not in str(error) and "language.dtype" in str(error) and "RRG_CACHE" in str(error), error
            os._exit(0)
        os._exit(1)
    assert shared_weights(folder, config, "float32") == folder, "the files are in this dtype"
    where = Path(shared_weights(folder, config, "bfloat16"))
    assert where.is_relative_to(cache) and where == Path(shared_weights(folder, config, "bfloat16"))
    options = typed_part(LANGUAGE, {"kind": "causal_lm", "name": folder, "dtype": "bfloat16"}, "language", "causal_lm")
    model = LANGUAGE.build(options, context=BuildContext()).model
    alone = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    ours, theirs = model.state_dict(), alone.state_dict()
    assert ours.keys() == theirs.keys() and model.name_or_path == model.config._name_or_path == folder
    assert all(ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in theirs)
    assert model.generation_config.to_dict() == alone.generation_config.to_dict()
    dist.barrier()
    os._exit(0)
