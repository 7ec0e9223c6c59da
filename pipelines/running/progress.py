"""Shows the progress of a run: as a live table on a terminal, as plain lines elsewhere.

Input: a `LocalRun` and ML Metadata.  Output: text.
The states come from ML Metadata, which is read a few times a second; the components do not print them.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Sequence

import rich.box
import rich.console
import rich.live
import rich.table
from ml_metadata import metadata_store

from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.push.versions import ServingBase
from tfx_ranking.pipelines.metadata.connection import open_or_make
from tfx_ranking.pipelines.metadata.run_records import Step, read_steps
from tfx_ranking.pipelines.quiet import print_loading
from tfx_ranking.pipelines.running.local import LocalRun
from tfx_ranking.pipelines.running.process import INTERRUPTED

_STYLES = {"waiting": "dim", "running": "bold cyan", "done": "green", "cached": "blue", "failed": "bold red"}
_POLL = 0.3  # seconds


def follow(run: LocalRun, connection: object, console: rich.console.Console) -> list[Step]:
    """Shows the run until it ends, and returns the last states of its components.

    Ctrl-C ends the run in order and at once.  SIGTERM ends it after the component that is running, a second SIGTERM at
    once.  Both raise KeyboardInterrupt.
    """
    began = time.time()
    store: metadata_store.MetadataStore | None = None
    seen: dict[str, str] = {}
    latest: list[Step] = []
    shown = ""  # the id of the run that is shown; a process may make several
    if not console.is_terminal:  # on a terminal the table shows it
        print_loading()
    live = rich.live.Live(console=console, refresh_per_second=4, transient=False) if console.is_terminal else None

    def update(note: str = "") -> None:
        nonlocal store, latest, shown
        if run.run_id != shown:
            shown = run.run_id
            seen.clear()
        if run.nodes:
            store = store or open_or_make(connection)
            latest = read_steps(store, run.run_id, run.nodes)
        if live:
            live.update(table(latest, time.time() - began, note))
        else:
            _print_changes(latest, seen, console)

    with live or contextlib.nullcontext(), _interrupts(run) as interrupted:
        under_way = True
        while under_way and not interrupted:
            under_way = run.under_way
            update()
            if under_way:
                time.sleep(_POLL)
        if interrupted:
            update("interrupted, ending in order")
            run.stop()
            update("interrupted")
            raise KeyboardInterrupt
    if run.process.returncode in (
        INTERRUPTED,
        -signal.SIGTERM,
    ):  # -SIGTERM: before its handler was set
        console.print(run.failure or "stopped before it began", soft_wrap=True, highlight=False)
        raise KeyboardInterrupt
    return latest


@contextlib.contextmanager
def _interrupts(run: LocalRun) -> Iterator[list[int]]:
    """Gives a list that Ctrl-C fills, and passes SIGTERM on to the run.

    The handler neither raises nor sets an event: an exception inside a library's callback is lost, and the thread in
    which the handler runs may hold the event's lock.
    """
    interrupts: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield interrupts
        return
    handlers = {
        signal.SIGINT: lambda number, _: interrupts.append(number),
        signal.SIGTERM: lambda *_: run.stop_after_component(),
    }
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield interrupts
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def table(latest: Sequence[Step], seconds: float, note: str = "") -> rich.console.RenderableType:
    """The components of a run as a table; one line of text until there are components."""
    caption = f"{seconds:.0f} s   {note}".rstrip()
    if not latest:
        return caption if note else f"{caption}   starting: loading TensorFlow and TFX"
    drawing = rich.table.Table(box=rich.box.SIMPLE, caption=caption, caption_justify="left")
    for heading, justify in (("component", "left"), ("state", "left"), ("seconds", "right"), ("figure", "left")):
        drawing.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for step in latest:
        seconds_text = f"{step.seconds:.1f}" if step.state in ("done", "failed", "running") else ""
        drawing.add_row(step.node, f"[{_STYLES[step.state]}]{step.state}[/]", seconds_text, step.figure)
    return drawing


def _print_changes(latest: Sequence[Step], seen: dict[str, str], console: rich.console.Console) -> None:
    for step in latest:
        if step.state != seen.get(step.node, "waiting"):
            seen[step.node] = step.state
            seconds = f"{step.seconds:6.1f} s" if step.state in ("done", "failed") else " " * 8
            console.print(
                f"{step.node:<20} {step.state:<8} {seconds}  {step.figure}".rstrip(), soft_wrap=True, highlight=False
            )


def outcome(config: RankingConfig, latest: Sequence[Step]) -> str:
    """After a successful run: where the model is, and which command to try next."""
    by_node = {step.node: step for step in latest}
    if config.push is None:
        model = by_node["SignatureExporter"].uri
        return f"exported: {model}; not pushed: the config has no push\nnext:     tfx-ranking inspect {model}"
    pushed = by_node["RankingPusher"]
    lines = [pushed.figure or pushed.state]
    version = ServingBase(config.push.base).live_version()
    if version:
        directory = f"{config.push.base}/{version}"
        command = f"inspect {directory}" if "://" not in directory else f"versions {config.push.base}"
        lines += [f"serving: {directory}", f"next:    tfx-ranking {command}"]
    return "\n".join(lines)
