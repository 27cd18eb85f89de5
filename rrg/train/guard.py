"""Non-finite losses and gradients: found on all ranks before the optimizer moves, named by study, skipped within a budget."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rrg.errors import UserError


class NonFiniteGuard:
    """Counts skipped steps. `path` lists them with the study ids of the step."""

    def __init__(self, path: Path, budget: int, skipped: int) -> None:
        self._path, self._budget, self.skipped = path, budget, skipped

    def skip(
        self, step: int, loss: float, grad_norm: float, suspects: Sequence[str], studies: Sequence[str], leads: bool
    ) -> None:
        """Record a step that was skipped: `suspects` are the studies of micro-batches whose own loss was not finite.

        Raises:
            UserError: the budget `train.max_nonfinite` is used up.
        """
        self.skipped += 1
        if leads:
            record = {
                "step": step,
                "loss": repr(loss),
                "grad_norm": repr(grad_norm),
                "suspects": list(suspects),
                "studies": list(studies),
            }
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        if self.skipped > self._budget:
            named = ", ".join((suspects or studies)[:8])
            raise UserError(
                f"step {step}: the loss or its gradient is not finite ({self.skipped} such steps, train.max_nonfinite is "
                f"{self._budget}); studies: {named}; all in {self._path}: look at these films and reports, or lower train.lr"
            )
