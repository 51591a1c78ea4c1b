"""What surrounds a training loop: progress that is shown, signals that wait for the end of a step."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console, OverflowMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

__all__ = ["interrupts", "show_progress"]


@contextlib.contextmanager
def show_progress(
    shown: bool, start: int, steps: int, items_per_batch: int, unit: str
) -> Iterator[Callable[[int, dict[str, float], bool], None]]:
    """Yields a function `show(step, line, whole)`, to be called after every step, and again when its line is whole.

    In a terminal it moves a bar with the newest of all metrics, cut where there is no room; elsewhere it prints
    the lines, each with its own.
    """
    values: dict[str, str] = {}
    timed, since = start, time.monotonic()
    console = Console()
    cut: OverflowMethod = "ellipsis" if console.encoding.startswith("utf") else "crop"
    metrics = TextColumn("{task.fields[text]}", table_column=Column(ratio=1, no_wrap=True, overflow=cut))
    live = console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal)

    def show(step: int, line: dict[str, float], whole: bool) -> None:
        nonlocal timed, since
        if line:
            now = time.monotonic()
            if step > timed:  # not the time that an evaluation took
                values[f"{unit}/s"] = f"{(step - timed) * items_per_batch / (now - since):,.0f}"
            timed, since = step, now
            values.update({name: f"{x:.4g}" for name, x in line.items() if name == "loss" or name.startswith("eval_")})
        bar.update(task, completed=step, text=_text(values))
        if whole and shown and not live:
            own = {name: x for name, x in values.items() if name in line or name == f"{unit}/s"}
            print(f"{step}/{steps}  {_text(own)}", flush=True)

    columns = (BarColumn(20), MofNCompleteColumn(), metrics, TimeRemainingColumn())
    with Progress(*columns, console=console, expand=True, disable=not (shown and live)) as bar:
        task = bar.add_task("", total=steps, completed=start, text="")
        yield show


def _text(values: dict[str, str]) -> str:
    return "  ".join(f"{name} {value}" for name, value in values.items())


@contextlib.contextmanager
def interrupts() -> Iterator[list[int]]:
    """Yields a list that a first Ctrl-C or SIGTERM fills, so that no step is cut in two; a second one acts as usual."""
    caught: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():  # signals are the main thread's
        handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        # None is a handler that is not Python's, which could not be put back. A signal that is ignored, as Ctrl-C is in
        # a job in the background, stays ignored.
        before = {n: h for n, h in handlers.items() if h not in (None, signal.SIG_IGN)}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        put_back()

    for number in before:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        put_back()
