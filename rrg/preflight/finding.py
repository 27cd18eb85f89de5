"""What a look at a node found wrong."""

from __future__ import annotations

from dataclasses import dataclass

BAD, WARNING = "bad", "warning"


@dataclass(frozen=True)
class Finding:
    """One problem, in one line. `setting`: the user can mend it (a path, a version); else it is a machine's."""

    node: str
    check: str  # versions, devices, disk, shards, port, links
    text: str
    grade: str = BAD
    setting: bool = True

    def line(self) -> str:
        """`BAD node3 disk: …`."""
        return f"{self.grade.upper()} {self.node} {self.check}: {self.text}"
