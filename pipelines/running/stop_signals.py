"""Counts the signals to stop that a process receives: the first one means stop in order, a second one stop at once.

Signals within a second of the first count as one: a service manager signals every process of a service, and a process
also passes the signal on to the one that it waits for.
"""

import time

_TOGETHER = 1.0  # seconds


class StopSignals:
    """The stop signals of one process."""

    def __init__(self) -> None:
        self.first: float | None = None  # the time of the first one, by time.monotonic
        self.at_once = False  # True after a second one

    @property
    def received(self) -> bool:
        """Whether a stop signal was received."""
        return self.first is not None

    def record(self) -> bool:
        """Records a signal; call it for each one.  Returns whether it is a second one, to stop at once."""
        now = time.monotonic()
        self.first = now if self.first is None else self.first
        self.at_once = self.at_once or now - self.first > _TOGETHER
        return self.at_once
