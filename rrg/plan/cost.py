"""What a part of the model costs for one micro-batch, as sums of named terms."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Term:
    """So many bytes, and why: `formula` in the symbols of docs/plan.md."""

    name: str
    bytes: float
    formula: str


@dataclass
class Cost:
    """Bytes and floating-point operations of one micro-batch.

    Attributes:
        kept: what autograd keeps from the forward pass until the backward pass.
        held: bytes that are alive beside it at the end of the forward pass, when the loss head runs.
        inside: of these, what a single operation has to itself and a dry run does not see.
        inputs: of frozen products, which are kept only where something asks for them (DeepSpeed's linear function under ZeRO-3).
        transient: the most that an operation of the part needs for itself at the beginning of the backward pass.
        forward: operations of the forward pass in this part's products.
        backward: of the backward pass: as many again for activation gradients, and again for weight gradients.
        recomputed: of the forward pass done a second time by gradient checkpointing.
        touched: bytes read and written by what is not a product (norms, activations, additions), both passes.
    """

    kept: list[Term] = field(default_factory=list)
    held: float = 0.0
    inside: float = 0.0
    inputs: float = 0.0
    transient: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    recomputed: float = 0.0
    touched: float = 0.0

    @property
    def kept_bytes(self) -> float:
        return sum(term.bytes for term in self.kept)

    @property
    def model_flops(self) -> float:
        return self.forward + self.backward
