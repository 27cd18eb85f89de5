"""How the processes of a run share the model: replicas (DDP), DeepSpeed ZeRO-2 and ZeRO-3, fully_shard (FSDP2) and its hybrid.

One setting, `strategy`, chooses. Whatever it is, a checkpoint holds whole tensors under the names of their parameters.
"""
