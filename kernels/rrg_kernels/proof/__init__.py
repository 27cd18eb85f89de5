"""What can be shown of a Triton kernel without a GPU.

- `aot`: compile the launches that a wrapper makes, specialised as the JIT would, for sm_80 and sm_90; registers, spills, shared
  memory, occupancy. Needs a process without TRITON_INTERPRET.
- `traffic`: count the bytes that a kernel's own loads and stores ask for and the FLOPs of its dots, by interpreting it; and the
  bytes that reach memory through a model of the L2 cache. Needs a process with TRITON_INTERPRET=1.
- `unfused`: the same counts for a PyTorch graph, operation by operation.
- `cases`: the published sizes of every kernel; `python -m rrg_kernels.proof` writes the tables.
"""
