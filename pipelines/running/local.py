"""Starts a ranking pipeline on this machine, in a process of its own, and follows it.

Input: a config file and a folder for the artifacts.  Output: a `LocalRun`.
This is the parent's side and loads no TFX; `process` is what the child process does.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.pipelines.metadata.connection import artifacts_root, config_connection, open_or_make
from tfx_ranking.pipelines.metadata.run_records import end_dead_executions
from tfx_ranking.pipelines.running import process

_RESEND = 2.0  # seconds between two signals
_GRACE = 20.0  # seconds that an interrupted run has to end in order


@dataclasses.dataclass
class LocalRun:
    """A run in a child process: the process, its log, and what it has reported."""

    config: RankingConfig
    root: pathlib.Path
    process: subprocess.Popen[str]
    log: pathlib.Path
    run_id: str = ""
    nodes: tuple[str, ...] = ()
    failure: str = ""  # one paragraph; "" while nothing failed
    data_error: bool = False  # the run failed because of its input
    results: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # how each run of a job ended
    stop_requested: bool = False  # also when no component was left to stop

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self.read_reports, daemon=True)
        self.reader.start()

    @property
    def under_way(self) -> bool:
        """False once the process has ended and everything that it reported is read."""
        return self.process.poll() is None or self.reader.is_alive()

    def read_reports(self) -> None:
        """Reads the process's reports, one JSON document a line, until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            report = json.loads(line)
            self.run_id = report.get("run_id", self.run_id)
            self.nodes = tuple(report.get("nodes", self.nodes))
            self.failure = report.get("failure", self.failure)
            self.data_error = report.get("data_error", self.data_error)
            self.results += [report["result"]] if "result" in report else []

    def stop_after_component(self) -> None:
        """Ends the run after the component that is running; a second call ends it at once."""
        self.stop_requested = True
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Interrupts the run and waits until it has ended; kills it after 20 s."""
        end = time.monotonic() + _GRACE
        while self.process.poll() is None and time.monotonic() < end:
            # Sent repeatedly: an exception that a signal raises inside a library's callback is lost.
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_RESEND)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            with process.hold_run_lock(self.config, self.root):
                store = open_or_make(config_connection(self.config, self.root))
                end_dead_executions(store, self.config.name)


def start(
    config_file: pathlib.Path,
    root: pathlib.Path,
    orchestrator: str = "beam",
    beam_args: Sequence[str] = (),
    job: Mapping[str, Any] | None = None,
) -> LocalRun:
    """Starts a run of the pipeline in `config_file`, with its artifacts under `root`.

    job: `sources`, the files to read instead of those that the config names, one run for each; and `check`: not None to
    run only the first steps on these files, as in `data_check_pipeline`.  When a check finds data that cannot be read,
    that is a result (`LocalRun.results`), and the next check begins.
    """
    config = ranking_config.load(config_file)
    folder = artifacts_root(config, root) / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{datetime.datetime.now():%Y%m%d-%H%M%S-%f}.log"
    command = [sys.executable, "-m", process.__name__, str(config_file), "--root", str(root)]
    command += ["--orchestrator", orchestrator, *(f"--beam-arg={arg}" for arg in beam_args)]
    if job is not None:
        file = log.with_suffix(".job.json")  # thousands of files do not fit on a command line
        file.write_text(json.dumps(job))
        command += ["--job", str(file)]
    with log.open("w") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,  # Ctrl-C reaches only this process, which then ends the child in order
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")},
        )
    return LocalRun(config, root, child, log)
