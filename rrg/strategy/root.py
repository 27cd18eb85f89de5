"""The module that strategies wrap: whatever the model does, it does inside this module's forward pass.

ZeRO-3 and fully_shard hang their bookkeeping on the forward pass of the outermost module. A model is used by more than one door
(training, the loss of a validation, generation), so the door is an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

T = TypeVar("T")


class Root(nn.Module):
    """`root(work)` is `work()`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[], T]) -> T:
        return work()
