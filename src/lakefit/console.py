"""What a run says: rich for people at a terminal, plain lines elsewhere, one JSON object a line for programs."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

Mode = Literal["rich", "plain", "json"]
Look = Callable[[], tuple[int, str, dict[str, Any]]]
"""Returns the steps done so far, a short text about them, and its numbers; called by a thread of its own."""


class Console:
    """Writes events to standard output. `verbose` adds details that are silent otherwise."""

    def __init__(self, mode: Mode | None = None, *, verbose: bool = False) -> None:
        self.mode: Mode = mode or ("rich" if sys.stdout.isatty() else "plain")
        self.verbose = verbose
        self._speaking = threading.Lock()

    def event(self, event: str, text: str, **fields: Any) -> None:
        """Say one thing that happened; `fields` are what a program reads of it."""
        if self.mode == "json":
            self._json({"event": event, "message": text, **fields})
        elif self.mode == "rich":
            from rich import print as rich_print
            from rich.markup import escape

            name, _, rest = text.partition(" ")
            rich_print(f"[bold]{escape(name)}[/bold] {escape(rest)}" if rest else escape(text), flush=True)
        else:
            self._line(text)

    def detail(self, event: str, text: str, **fields: Any) -> None:
        """Say it where details were asked for."""
        if self.verbose:
            self.event(event, text, **fields)

    def result(self, fields: dict[str, Any], sections: Sequence[tuple[str, Sequence[tuple[str, ...]]]]) -> None:
        """Say how it ended: one JSON line, or a table a section with a title and rows of cells."""
        if self.mode == "json":
            self._json({"event": "result", **fields})
            return
        for title, rows in sections:
            if self.mode == "rich":
                self._rich_table(title, rows)
            else:
                self._plain_table(title, rows)

    @contextmanager
    def progress(self, title: str, total: int, look: Look) -> Iterator[None]:
        """Show how far a loop of `total` steps is: a bar at a terminal, a line every 30 s elsewhere.

        The loop need not stop for it: a thread looks.
        """
        if self.mode == "rich":
            from rich.console import Group
            from rich.live import Live
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.text import Text

            bar = Progress(TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            task, note = bar.add_task(title, total=total), Text(overflow="ellipsis")
            with Live(Group(bar, note), transient=True):

                def show() -> None:
                    done, text, fields = look()
                    bar.update(task, completed=done)
                    note.plain = "\n".join(line for line in (text, fields.get("blame")) if line)

                with repeated(show, 0.2):
                    yield
                show()
            return

        began, before = time.monotonic(), look()[0]

        def say() -> None:
            done, note, fields = look()
            took = time.monotonic() - began
            left = f"  {_duration(took / (done - before) * (total - done))} left" if done > before else ""
            blame = f"  {fields['blame']}" if "blame" in fields else ""
            self.event("progress", f"{title} {done:,}/{total:,}  {note}{left}{blame}", done=done, total=total, **fields)

        with repeated(say, 30):
            yield

    def _json(self, value: dict[str, Any]) -> None:
        self._line(json.dumps(value, ensure_ascii=False, default=str))

    def _line(self, text: str) -> None:
        # Threads speak as well, and `print` writes a line and its end apart.
        with self._speaking:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def _rich_table(self, title: str, rows: Sequence[tuple[str, ...]]) -> None:
        from rich import print as rich_print
        from rich.table import Table

        table = Table(
            title=title, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False
        )
        for place in range(max(len(row) for row in rows)):
            numbers = all(len(row) <= place or _is_number(row[place]) for row in rows[1:])
            table.add_column(justify="right" if place and numbers else "left", overflow="fold")
        for row in rows:
            table.add_row(*row)
        rich_print(table)
        print()

    def _plain_table(self, title: str, rows: Sequence[tuple[str, ...]]) -> None:
        widths = [max(len(row[i]) for row in rows if len(row) > i) for i in range(max(len(row) for row in rows))]
        print(title)
        for row in rows:
            cells = [
                cell.rjust(widths[i]) if i and _is_number(cell) else cell.ljust(widths[i]) for i, cell in enumerate(row)
            ]
            print("  " + "  ".join(cells).rstrip())
        print(flush=True)


class Beside(Console):
    """Of a process beside the one that says what they all do: it says what holds it up alone."""

    def event(self, event: str, text: str, **fields: Any) -> None:
        if event in ("stalled", "waiting"):
            super().event(event, text, **fields)

    @contextmanager
    def progress(self, title: str, total: int, look: Look) -> Iterator[None]:
        yield


@contextmanager
def repeated(show: Callable[[], None], seconds: float) -> Iterator[None]:
    """Call `show` again and again, in a thread, until the block ends."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            show()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").replace("%", "").strip().isdigit()
