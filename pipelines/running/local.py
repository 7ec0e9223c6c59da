"""Runs a ranking pipeline on this machine, in a process of its own, and tells how it goes.

`start` begins the run (light: no TFX here) and gives a `Run` to follow; the process it starts is this module run as a
script: it holds the pipeline's lock, ends what a killed run left behind in ML Metadata, and hands the DAG to TFX's
runner.  Everything that TFX, Beam and TensorFlow say goes to the run's log file.
"""

import argparse
import contextlib
import ctypes
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
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ml_metadata import errors, metadata_store

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.config import RankingConfig, own_code
from tfx_ranking.components.errors import DataError, RankingError
from tfx_ranking.pipelines.metadata.connection import artifacts_root, config_connection, open_or_make
from tfx_ranking.pipelines.metadata.run_records import (
    LOCK,
    end_dead_executions,
    say_what_is_to_run,
    say_why_it_failed,
)
from tfx_ranking.pipelines.running import process_lock
from tfx_ranking.pipelines.running.stop_signals import StopSignals

ORCHESTRATORS = ("beam", "local")
INTERRUPTED = 130  # exit code of a run that was stopped: the same command goes on from what was done
_INSIST = 2.0  # seconds between one signal and the next
_GRACE = 20.0  # seconds that an interrupted run has to end cleanly


@dataclasses.dataclass
class Run:
    """A run under way: its process, its log, and what it has said of itself."""

    config: RankingConfig
    root: pathlib.Path
    process: subprocess.Popen[str]
    log: pathlib.Path
    run_id: str = ""
    nodes: tuple[str, ...] = ()
    failure: str = ""  # one paragraph; empty while nothing failed
    stop_asked: bool = False  # even where the component that was running was the last
    of_the_data: bool = False  # it failed because of its input
    ended: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # of several runs: how each ended

    def __post_init__(self) -> None:
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    @property
    def under_way(self) -> bool:
        """False once the process has ended and all that it said is taken in."""
        return self.process.poll() is None or self.listener.is_alive()

    def listen(self) -> None:
        """Takes in what the process says of itself, a JSON line each, until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            self.run_id = said.get("run_id", self.run_id)
            self.nodes = tuple(said.get("nodes", self.nodes))
            self.failure = said.get("failure", self.failure)
            self.of_the_data = said.get("of_the_data", self.of_the_data)
            self.ended += [said["ended"]] if "ended" in said else []

    def stop_after_component(self) -> None:
        """Asks the run to end when the component that is running has; asked once more, it ends at once."""
        self.stop_asked = True
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Interrupts the run and waits until it has ended; one that does not within 20 s is killed."""
        end = time.monotonic() + _GRACE
        while self.process.poll() is None and time.monotonic() < end:
            # Again and again: what a signal raises within a library's callback is lost.
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_INSIST)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            with _lock(self.config, self.root):
                end_dead_executions(_store(self.config, self.root), self.config.name)


class Stop(StopSignals):
    """A wish to end the run in order: no component begins any more."""

    before = ""  # the component that did not begin
    ending = False  # what is done now must not be interrupted

    def on_signal(self, *_: Any) -> None:
        """SIGTERM's handler; a second one ends the run at once."""
        if self.again() and not self.ending:
            raise KeyboardInterrupt

    def on_interrupt(self, *_: Any) -> None:
        """SIGINT's handler: ends the run at once."""
        self.first = self.first or time.monotonic()  # where the exception is lost, no component begins after this one
        if not self.ending:
            raise KeyboardInterrupt


def start(
    config_file: pathlib.Path,
    root: pathlib.Path,
    orchestrator: str = "beam",
    beam_args: Sequence[str] = (),
    job: Mapping[str, Any] | None = None,
) -> Run:
    """Begins a run of the pipeline in `config_file`, artifacts under `root`.

    job: `sources`, a run each: the files to read in place of those that the config names now; and `check`, which has
    only the first steps run on these files (`data_check_pipeline`), or None.  A check that finds data which cannot be
    read is an answer (`Run.ended`), and the next one goes on.
    """
    config = ranking_config.load(config_file)
    folder = artifacts_root(config, root) / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{datetime.datetime.now():%Y%m%d-%H%M%S-%f}.log"
    command = [sys.executable, "-m", "tfx_ranking.pipelines.running.local", str(config_file), "--root", str(root)]
    command += ["--orchestrator", orchestrator, *(f"--beam-arg={arg}" for arg in beam_args)]
    if job is not None:
        file = log.with_suffix(".job.json")  # thousands of files do not fit on a command line
        file.write_text(json.dumps(job))
        command += ["--job", str(file)]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the other in order
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2")},
        )
    return Run(config, root, process, log)


def run_here(
    config_file: pathlib.Path,
    root: pathlib.Path,
    orchestrator: str = "beam",
    beam_args: Sequence[str] = (),
    job: Mapping[str, Any] | None = None,
) -> str:
    """Runs the pipeline in this process, as `start` does in another; gives the run's id.

    job: `source` and `check`, as `start` has them for each run.
    Raises RankingError when another run holds the lock.
    """
    config = ranking_config.load(config_file)
    with _lock(config, root):
        return _run(config, config_file, root, orchestrator, beam_args, lambda said: None, Stop(), job)


def _run(
    config: Any,
    config_file: pathlib.Path,
    root: pathlib.Path,
    orchestrator: str,
    beam_args: Any,
    say: Any,
    stop: Any,
    job: Any,
) -> str:
    connection = config_connection(config, root)
    store = open_or_make(connection)
    end_dead_executions(store, config.name)

    from tfx.dsl.compiler import compiler, constants
    from tfx.orchestration import metadata
    from tfx.orchestration.portable import runtime_parameter_utils
    from tfx.orchestration.portable.mlmd import context_lib

    from tfx_ranking.pipelines.data_check_pipeline import data_check_pipeline
    from tfx_ranking.pipelines.ranking_pipeline import ranking_pipeline

    with own_code.importable(config.own_code.values(), config_file.absolute().parent):
        if job and job["check"]:
            steps = data_check_pipeline(config, root, job["source"], job["check"], beam_args)
        else:
            steps = ranking_pipeline(config, root, beam_args, job["source"] if job else None)
        pipeline = compiler.Compiler().compile(steps)
        run_id = datetime.datetime.now().isoformat()
        parameters = {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
        runtime_parameter_utils.substitute_runtime_parameter(pipeline, parameters)
        nodes = [node.pipeline_node.node_info.id for node in pipeline.nodes]
        say({"run_id": run_id, "nodes": nodes})
        with metadata.Metadata(connection) as handle:
            context_lib.prepare_contexts(handle, pipeline.nodes[0].pipeline_node.contexts)
        say_what_is_to_run(store, run_id, nodes)
        try:
            with _stopped_between_components(stop):
                _runner(orchestrator).run_with_ir(pipeline)
        except Exception as error:
            with contextlib.suppress(errors.StatusError):  # the error itself is what is to be seen
                say_why_it_failed(store, run_id, reason(error))
            raise
        finally:
            stop.ending = stop.asked
            end_dead_executions(store, config.name)
    return run_id


def _store(config: RankingConfig, root: pathlib.Path) -> metadata_store.MetadataStore:
    return open_or_make(config_connection(config, root))


def _runner(orchestrator: str) -> Any:
    if orchestrator == "beam":
        from tfx.orchestration.beam.beam_dag_runner import BeamDagRunner

        return BeamDagRunner()
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner

    return LocalDagRunner()


def _lock(config: Any, root: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    another = "another run is under way (process {holder}); wait for it or stop it, then try again."
    return process_lock.hold(artifacts_root(config, root) / LOCK, f"{config.name}: {another}")


@contextlib.contextmanager
def _stopped_between_components(stop: Stop) -> Iterator[None]:
    """No component begins once `stop` is asked for.  Here, since every runner of TFX goes through its launcher."""
    from tfx.orchestration.portable import launcher

    launch = launcher.Launcher.launch

    def launch_unless_stopped(self: Any) -> Any:
        if stop.asked:
            stop.before = stop.before or self._pipeline_node.node_info.id
            raise RankingError(f"stopped before {stop.before}")
        return launch(self)

    launcher.Launcher.launch = launch_unless_stopped
    try:
        yield
    finally:
        launcher.Launcher.launch = launch


def first_cause(error: BaseException) -> BaseException:
    """What it began with, without Beam's and TFX's wrapping; what is ours says itself what was behind it."""
    while error.__cause__ is not None and not isinstance(error, RankingError):
        error = error.__cause__
    return error


def reason(error: BaseException) -> str:
    """The first cause in one paragraph."""
    error = first_cause(error)
    text = str(error) or type(error).__name__
    text = text.split(" [while running '")[0]
    return text if isinstance(error, RankingError) else f"{type(error).__name__}: {text}"


def _jobs(file: pathlib.Path | None) -> list[dict[str, Any] | None]:
    if file is None:
        return [None]
    asked = json.loads(file.read_text())
    return [{"source": source, "check": asked["check"]} for source in asked["sources"]]


def _run_and_tell(config: Any, arguments: Any, say: Any, stop: Stop, job: dict[str, Any] | None) -> None:
    place = config, arguments.config, arguments.root, arguments.orchestrator, arguments.beam_arg
    try:
        say({"ended": {"run_id": _run(*place, say, stop, job)}})
    except Exception as error:
        if not (job and job["check"] and isinstance(first_cause(error), DataError)):
            raise
        traceback.print_exc()
        say({"ended": {"run_id": "", "failure": reason(error), "of_the_data": True}})


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=pathlib.Path)
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--orchestrator", choices=ORCHESTRATORS, default="beam")
    parser.add_argument("--beam-arg", action="append", default=[])
    parser.add_argument("--job", type=pathlib.Path)
    arguments = parser.parse_args()
    # The pipe to whoever started this; what libraries print goes to the log instead.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with contextlib.suppress(OSError):  # die with the starter: a killed command leaves nobody running
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)

    stop = Stop()
    signal.signal(signal.SIGTERM, stop.on_signal)
    signal.signal(signal.SIGINT, stop.on_interrupt)

    def say(said: dict[str, Any]) -> None:
        pipe.write(json.dumps(said) + "\n")
        pipe.flush()

    try:
        import logging

        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
        config = ranking_config.load(arguments.config)
        with _lock(config, arguments.root):
            for job in _jobs(arguments.job):
                _run_and_tell(config, arguments, say, stop, job)
    except KeyboardInterrupt:
        say({"failure": "interrupted"})
        raise SystemExit(INTERRUPTED) from None
    except BaseException as error:
        if stop.before:
            say({"failure": f"stopped before {stop.before}"})
            raise SystemExit(INTERRUPTED) from None
        traceback.print_exc()
        say({"failure": reason(error), "of_the_data": isinstance(first_cause(error), DataError)})
        raise SystemExit(1) from None


if __name__ == "__main__":
    _main()
