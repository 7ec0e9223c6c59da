"""What a signal to stop means: the first one, stop in order; a second one, stop at once.

Enters: signals, as they come.  Leaves: their meaning.  The one idea: a service manager signals every process of a
service, and a process passes a signal on to the one that it waits for, so two that come together are one.
"""

import time

_TOGETHER = 1.0  # seconds


class StopSignals:
    """Those of one process."""

    def __init__(self) -> None:
        self.first: float | None = None  # when, by time.monotonic
        self.at_once = False  # whether a second one came

    @property
    def asked(self) -> bool:
        """Whether a stop was asked for."""
        return self.first is not None

    def again(self) -> bool:
        """To be called for each signal: whether it is a second one."""
        now = time.monotonic()
        self.first = now if self.first is None else self.first
        self.at_once = self.at_once or now - self.first > _TOGETHER
        return self.at_once
