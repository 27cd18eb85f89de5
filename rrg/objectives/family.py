"""The objectives of a recipe: options by kind, and what builds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rrg.config.context import BuildContext
from rrg.config.family import Family
from rrg.config.ranges import check_number
from rrg.config.schema import option

if TYPE_CHECKING:
    from rrg.objectives.report import ReportObjective

OBJECTIVE = Family("objective")


@dataclass
class ReportOptions:
    kind: str = option("report", "next-token likelihood of the report")
    weight: float = option(1.0, "factor in the total loss")

    def check(self, path: str) -> None:
        check_number(f"{path}.weight", self.weight, least=0)


@OBJECTIVE.kind("report", ReportOptions)
def build_report(options: ReportOptions, context: BuildContext) -> ReportObjective:
    """Mean negative log-likelihood of the report tokens over the global batch."""
    from rrg.objectives.report import ReportObjective

    return ReportObjective(options)
