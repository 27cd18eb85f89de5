"""What a person sees while a run goes on: the parameter table, a bar on a terminal, a line now and then on a log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from rrg.train.optim import TableRow
from rrg.train.phases import phases


class Reporter:
    """Talks on rank 0 only; silent elsewhere."""

    def __init__(self, talks: bool, log_every: int = 10) -> None:
        self.console = Console(stderr=True, quiet=not talks, highlight=False)
        if not self.console.is_terminal:  # a log has no width: tables are not to be cut to eighty columns
            self.console.width = 140
        self._log_every = log_every

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def parameters(self, title: str, rows: Sequence[TableRow]) -> None:
        """What is trained and what is not, with totals."""
        table = Table(title=title, title_justify="left")
        for name in ("parameters", "tensors", "count", "dtype", "learning rate", "state"):
            table.add_column(name, justify="right" if name in ("tensors", "count", "learning rate") else "left")
        for row in rows:
            rate = "" if row.lr is None else f"{row.lr:.2e}"
            style = "bold" if row.state == "trained" else "dim"
            table.add_row(row.pattern, str(row.tensors), f"{row.count:,}", row.dtype, rate, row.state, style=style)
        trained = sum(row.count for row in rows if row.state == "trained")
        total = sum(row.count for row in rows)
        table.add_row("trained", "", f"{trained:,}", "", "", f"{100 * trained / max(total, 1):.2f} % of {total:,}")
        self.console.print(table)

    def steps(self, name: str, done: int, total: int) -> Steps:
        """The bar of a training run."""
        return Steps(self, name, done, total, self._log_every)

    def counting(self, name: str) -> Callable[[int, int], None]:
        """A callback (done, of) that says a line at every tenth of the way."""
        said = -1

        def count(done: int, of: int) -> None:
            nonlocal said
            phases.beat()
            tenth = 10 * done // max(of, 1)
            if tenth > said:
                said = tenth
                self.say(f"{name}: {done:,} of {of:,}")

        return count


class Steps:
    """Context of the training loop: a live bar on a terminal, lines elsewhere."""

    def __init__(self, reporter: Reporter, name: str, done: int, total: int, log_every: int) -> None:
        self._reporter, self._name, self._done, self._total, self._log_every = reporter, name, done, total, log_every
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Steps:
        console = self._reporter.console
        if console.is_terminal and not console.quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"))
            self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
            self._task = self._bar.add_task(self._name, total=self._total, completed=self._done, figures="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, step: int, loss: float, studies_per_s: float, tokens_per_s: float, wait_share: float) -> None:
        """One optimizer step is done."""
        figures = f"loss {loss:.4f}  {studies_per_s:.1f} studies/s  {tokens_per_s:.0f} tokens/s  loader wait {wait_share:.0%}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, figures=figures)
        elif step % self._log_every == 0 or step == self._total:
            self._reporter.say(f"{self._name} step {step}/{self._total}  {figures}")
