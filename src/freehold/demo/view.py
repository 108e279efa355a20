"""The live view: steps as they are done, and a table of what runs; plain lines where there is no terminal."""

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text


class View:
    """Shows the demo; use it in `with`."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._started = time.monotonic()
        self._services: list[dict[str, Any]] = []
        self._names: dict[str, str] = {}
        self._balances: list[tuple[str, str]] = []
        self._note = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._started

    def step(self, text: str) -> None:
        """A heading; what was going on before is over."""
        self._note = ""
        self._refresh()
        self._print(Text(f"\n[{self.elapsed_s:5.1f} s] {text}", style="bold"))

    def line(self, text: str) -> None:
        """A line below the heading."""
        self._print(Text(f"    {text}"))

    def command(self, text: str) -> None:
        """A command that is typed."""
        self._print(Text(f"    {text}", style="cyan"))

    def progress(self, text: str) -> None:
        """What is going on; replaced by the next one on a terminal."""
        self._note = text
        if self._console.is_terminal:
            self._refresh()
        else:
            self._print(Text(f"    {text}"))

    def show(self, services: list[dict[str, Any]], names: dict[str, str], balances: list[tuple[str, str]]) -> None:
        """What runs now; `names` gives people's names of nodes by id."""
        self._services, self._names, self._balances = services, names, balances
        self._refresh()

    def shown(self) -> str:
        """What the live part shows now, as plain text."""
        with self._console.capture() as captured:
            self._console.print(self._live.get_renderable())
        return captured.get()

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def _refresh(self) -> None:
        if not self._console.is_terminal:
            return
        if not self._services:
            self._live.update(Text(self._note, style="yellow"))
            return
        table = Table("service", "node", "term", "state", "health", "paid", box=None, padding=(0, 2))
        for row in self._services:
            node = self._names.get(row["node"], row["node"][:12])
            table.add_row(row["service"], node, str(row["term"]), row["state"], row["health"] or "-", row["paid"])
        farms = "   ".join(f"{name} {balance}" for name, balance in self._balances)
        self._live.update(Group(Text(""), table, Text(farms, style="dim"), Text(self._note, style="yellow")))
