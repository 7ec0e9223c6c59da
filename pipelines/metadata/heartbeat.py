"""Heartbeats: a step on another machine shows that it is alive.

Input: an execution in ML Metadata.  Output: its custom property `heartbeat`, in seconds since 1970, written every half
minute.  A lock does not reach from one machine to another, but all of them write to the same store.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from ml_metadata import errors, metadata_store

HEARTBEAT = "heartbeat"
EVERY = 30.0  # seconds between two heartbeats
DEAD_AFTER = 300.0  # seconds without one; clocks may differ, and the store may be unreachable for a moment


@contextlib.contextmanager
def write_heartbeats(connection: Any, execution: int) -> Iterator[None]:
    """Writes heartbeats while the body runs; the caller writes the first one when it registers the execution."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(EVERY):
            # The store may be unreachable for a moment; the training goes on.
            with contextlib.suppress(RuntimeError, errors.StatusError):
                _beat(connection, execution)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def is_alive(execution: Any) -> bool | None:
    """Whether a running execution is alive; None for one without a heartbeat, whose pipeline has a lock instead."""
    if HEARTBEAT not in execution.custom_properties:
        return None
    return bool(time.time() - execution.custom_properties[HEARTBEAT].double_value < DEAD_AFTER)


def _beat(connection: Any, execution: int) -> None:
    store = metadata_store.MetadataStore(connection)
    [proto] = store.get_executions_by_id([execution])
    proto.custom_properties[HEARTBEAT].double_value = time.time()
    store.put_executions([proto])
