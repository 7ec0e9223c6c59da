"""A step on another machine says that it is alive; one that has not for long is dead.

Enters: an execution of ML Metadata.  Leaves: its custom property `heartbeat`, seconds since 1970, anew every half
minute.  The one idea: no lock reaches from one machine to another, but all of them write to one store.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

from ml_metadata import errors, metadata_store

HEARTBEAT = "heartbeat"
EVERY = 30.0  # seconds
DEAD_AFTER = 300.0  # seconds without one; clocks may differ by some, a store may be away for a moment


@contextlib.contextmanager
def beating(connection: Any, execution: int) -> Iterator[None]:
    """Writes while the body runs; whoever registers the execution writes the first one with it."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(EVERY):
            # A store that is away for a moment is no reason to end a training.
            with contextlib.suppress(RuntimeError, errors.StatusError):
                _beat(connection, execution)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def beats(execution: Any) -> bool | None:
    """Whether a running execution is alive; None for one without a heartbeat, of which a lock tells."""
    if HEARTBEAT not in execution.custom_properties:
        return None
    return bool(time.time() - execution.custom_properties[HEARTBEAT].double_value < DEAD_AFTER)


def _beat(connection: Any, execution: int) -> None:
    store = metadata_store.MetadataStore(connection)
    [proto] = store.get_executions_by_id([execution])
    proto.custom_properties[HEARTBEAT].double_value = time.time()
    store.put_executions([proto])
