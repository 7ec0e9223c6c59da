"""What a person sees of a run: one live table on a terminal, plain lines elsewhere.

Enters: a `Run` and ML Metadata.  Leaves: text.  The one idea: the store is asked a few times a second; components
know nothing of the screen.
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
from tfx_ranking.pipelines.metadata.run_records import Step, steps
from tfx_ranking.pipelines.quiet import print_loading
from tfx_ranking.pipelines.running.local import INTERRUPTED, Run

_STYLES = {"waiting": "dim", "running": "bold cyan", "done": "green", "cached": "blue", "failed": "bold red"}
_EVERY = 0.3  # seconds


def follow(run: Run, connection: object, console: rich.console.Console) -> list[Step]:
    """Shows the run until it ends; gives its last state.

    Ctrl-C ends the run cleanly and at once, SIGTERM when the component that is running has ended (a second one at
    once); both raise KeyboardInterrupt.
    """
    began = time.time()
    store: metadata_store.MetadataStore | None = None
    seen: dict[str, str] = {}
    latest: list[Step] = []
    shown = ""  # the run; a process may make several
    if not console.is_terminal:  # the table says it
        print_loading()
    live = rich.live.Live(console=console, refresh_per_second=4, transient=False) if console.is_terminal else None

    def look(note: str = "") -> None:
        nonlocal store, latest, shown
        if run.run_id != shown:
            shown = run.run_id
            seen.clear()
        if run.nodes:
            store = store or open_or_make(connection)
            latest = steps(store, run.run_id, run.nodes)
        if live:
            live.update(table(latest, time.time() - began, note))
        else:
            _print_changes(latest, seen, console)

    with live or contextlib.nullcontext(), _interrupts(run) as interrupted:
        under_way = True
        while under_way and not interrupted:
            under_way = run.under_way
            look()
            if under_way:
                time.sleep(_EVERY)
        if interrupted:
            look("interrupted, ending in order")
            run.stop()
            look("interrupted")
            raise KeyboardInterrupt
    if run.process.returncode in (INTERRUPTED, -signal.SIGTERM):  # the second: before it could hold a signal back
        console.print(run.failure or "stopped before it began", soft_wrap=True, highlight=False)
        raise KeyboardInterrupt
    return latest


@contextlib.contextmanager
def _interrupts(run: Run) -> Iterator[list[int]]:
    """Ctrl-C fills a list: an exception may be raised inside a library's callback, which loses it, and an event's lock
    may be held by the very thread that the handler runs in.  SIGTERM goes on to the run."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield asked
        return
    handlers = {
        signal.SIGINT: lambda number, _: asked.append(number),
        signal.SIGTERM: lambda *_: run.stop_after_component(),
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def table(latest: Sequence[Step], seconds: float, note: str = "") -> rich.console.RenderableType:
    """The components of a run as a table; one line as long as it has not come to any."""
    said = f"{seconds:.0f} s   {note}".rstrip()
    if not latest:
        return said if note else f"{said}   starting: loading TensorFlow and TFX"
    drawn = rich.table.Table(box=rich.box.SIMPLE, caption=said, caption_justify="left")
    for heading, justify in (("component", "left"), ("state", "left"), ("seconds", "right"), ("figure", "left")):
        drawn.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for step in latest:
        took = f"{step.seconds:.1f}" if step.state in ("done", "failed", "running") else ""
        drawn.add_row(step.node, f"[{_STYLES[step.state]}]{step.state}[/]", took, step.figure)
    return drawn


def _print_changes(latest: Sequence[Step], seen: dict[str, str], console: rich.console.Console) -> None:
    for step in latest:
        if step.state != seen.get(step.node, "waiting"):
            seen[step.node] = step.state
            took = f"{step.seconds:6.1f} s" if step.state in ("done", "failed") else " " * 8
            console.print(
                f"{step.node:<20} {step.state:<8} {took}  {step.figure}".rstrip(), soft_wrap=True, highlight=False
            )


def outcome(config: RankingConfig, latest: Sequence[Step]) -> str:
    """Where the model is after a run that ended well, and what to try next."""
    by_node = {step.node: step for step in latest}
    if config.push is None:
        model = by_node["SignatureExporter"].uri
        return f"exported: {model}, pushed nowhere: the config has no push\nnext:     tfx-ranking inspect {model}"
    pushed = by_node["RankingPusher"]
    lines = [pushed.figure or pushed.state]
    version = ServingBase(config.push.base).live_version()
    if version:
        directory = f"{config.push.base}/{version}"
        look = f"inspect {directory}" if "://" not in directory else f"versions {config.push.base}"
        lines += [f"serving: {directory}", f"next:    tfx-ranking {look}"]
    return "\n".join(lines)
