"""Runs a ranking pipeline in this process: what `local.start` starts as a child process, and `run_here`.

Input: a config file and a folder for the artifacts.  Output: a finished run, recorded in ML Metadata.

A run holds the pipeline's lock.  It first marks what a killed run left unfinished in ML Metadata as failed, then hands
the DAG to TFX's runner.  A child process writes the output of TFX, Beam and TensorFlow to the run's log, and reports to
its parent on standard output, one JSON document a line.
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
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ml_metadata import errors

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.config import RankingConfig, own_code
from tfx_ranking.components.errors import DataError, RankingError
from tfx_ranking.pipelines.metadata.connection import artifacts_root, config_connection, open_or_make
from tfx_ranking.pipelines.metadata.run_records import (
    LOCK,
    end_dead_executions,
    failure_text,
    first_cause,
    record_failure,
    record_nodes,
)
from tfx_ranking.pipelines.running import process_lock
from tfx_ranking.pipelines.running.stop_signals import StopSignals

ORCHESTRATORS = ("beam", "local")
INTERRUPTED = 130  # exit code of a stopped run: the same command continues after the finished components

Report = Callable[[dict[str, Any]], None]  # sends a JSON document to the parent


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRequest:
    """One run to make."""

    config: RankingConfig
    config_file: pathlib.Path  # the user's own code is imported from its folder
    root: pathlib.Path  # of the artifacts
    orchestrator: str = "beam"
    beam_args: Sequence[str] = ()
    job: Mapping[str, Any] | None = None  # `source` and `check`, as in `local.start`; None: the config's own files

    @property
    def is_check(self) -> bool:
        """Whether only the pipeline's first steps run."""
        return bool(self.job and self.job["check"])


class Stop(StopSignals):
    """A request to end the run in order: no further component begins."""

    before = ""  # the component that did not begin
    ending = False  # True while the run is cleaned up, which must not be interrupted

    def on_terminate(self, *_: Any) -> None:
        """SIGTERM's handler; a second signal ends the run at once."""
        if self.record() and not self.ending:
            raise KeyboardInterrupt

    def on_interrupt(self, *_: Any) -> None:
        """SIGINT's handler: ends the run at once."""
        self.first = self.first or time.monotonic()  # when the exception is lost, still no further component begins
        if not self.ending:
            raise KeyboardInterrupt


def run_here(
    config_file: pathlib.Path,
    root: pathlib.Path,
    orchestrator: str = "beam",
    beam_args: Sequence[str] = (),
    job: Mapping[str, Any] | None = None,
) -> str:
    """Runs the pipeline in this process, as `local.start` does in another, and returns the run's id.

    job: `source` and `check`; see `local.start`.  Raises RankingError when another run holds the lock.
    """
    request = RunRequest(
        config=ranking_config.load(config_file),
        config_file=config_file,
        root=root,
        orchestrator=orchestrator,
        beam_args=beam_args,
        job=job,
    )
    with hold_run_lock(request.config, root):
        return _run(request, lambda report: None, Stop())


def hold_run_lock(config: RankingConfig, root: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """Holds the lock that allows one run of a pipeline at a time.  Raises RankingError when another process has it."""
    refused = "another run is under way (process {holder}); wait for it or stop it, then try again."
    return process_lock.hold(artifacts_root(config, root) / LOCK, f"{config.name}: {refused}")


def _run(request: RunRequest, report: Report, stop: Stop) -> str:
    """Makes the run and returns its id; the caller holds the lock."""
    config, job = request.config, request.job
    connection = config_connection(config, request.root)
    store = open_or_make(connection)
    end_dead_executions(store, config.name)

    from tfx.dsl.compiler import compiler, constants
    from tfx.orchestration import metadata
    from tfx.orchestration.portable import runtime_parameter_utils
    from tfx.orchestration.portable.mlmd import context_lib

    from tfx_ranking.pipelines.data_check_pipeline import data_check_pipeline
    from tfx_ranking.pipelines.ranking_pipeline import ranking_pipeline

    with own_code.importable(config.own_code.values(), request.config_file.absolute().parent):
        if job and request.is_check:
            dag = data_check_pipeline(config, request.root, job["source"], job["check"], request.beam_args)
        else:
            dag = ranking_pipeline(config, request.root, request.beam_args, job["source"] if job else None)
        pipeline = compiler.Compiler().compile(dag)
        run_id = datetime.datetime.now().isoformat()
        parameters = {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
        runtime_parameter_utils.substitute_runtime_parameter(pipeline, parameters)
        nodes = [node.pipeline_node.node_info.id for node in pipeline.nodes]
        report({"run_id": run_id, "nodes": nodes})
        with metadata.Metadata(connection) as handle:
            context_lib.prepare_contexts(handle, pipeline.nodes[0].pipeline_node.contexts)
        record_nodes(store, run_id, nodes)
        try:
            with _stopped_between_components(stop):
                _runner(request.orchestrator).run_with_ir(pipeline)
        except Exception as error:
            with contextlib.suppress(errors.StatusError):  # the run's own error is the one to show
                record_failure(store, run_id, failure_text(error))
            raise
        finally:
            stop.ending = stop.received
            end_dead_executions(store, config.name)
    return run_id


def _runner(orchestrator: str) -> Any:
    if orchestrator == "beam":
        from tfx.orchestration.beam.beam_dag_runner import BeamDagRunner

        return BeamDagRunner()
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner

    return LocalDagRunner()


@contextlib.contextmanager
def _stopped_between_components(stop: Stop) -> Iterator[None]:
    """Lets no component begin after a stop signal.  It patches TFX's launcher, which every runner of TFX calls."""
    from tfx.orchestration.portable import launcher

    launch = launcher.Launcher.launch

    def launch_unless_stopped(self: Any) -> Any:
        if stop.received:
            stop.before = stop.before or self._pipeline_node.node_info.id
            raise RankingError(f"stopped before {stop.before}")
        return launch(self)

    launcher.Launcher.launch = launch_unless_stopped
    try:
        yield
    finally:
        launcher.Launcher.launch = launch


def _read_jobs(file: pathlib.Path | None) -> list[dict[str, Any] | None]:
    """The job of each run; [None] for one run of the files that the config names."""
    if file is None:
        return [None]
    job = json.loads(file.read_text())
    return [{"source": source, "check": job["check"]} for source in job["sources"]]


def _run_and_report(request: RunRequest, report: Report, stop: Stop) -> None:
    try:
        report({"result": {"run_id": _run(request, report, stop)}})
    except Exception as error:
        if not (request.is_check and isinstance(first_cause(error), DataError)):
            raise
        traceback.print_exc()
        report({"result": {"run_id": "", "failure": failure_text(error), "data_error": True}})


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=pathlib.Path)
    parser.add_argument("--root", type=pathlib.Path, required=True)
    parser.add_argument("--orchestrator", choices=ORCHESTRATORS, default="beam")
    parser.add_argument("--beam-arg", action="append", default=[])
    parser.add_argument("--job", type=pathlib.Path)
    arguments = parser.parse_args()
    # Reports go to the parent through a copy of standard output; everything else that is printed goes to the log.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with contextlib.suppress(OSError):  # end with the parent, so that a killed command leaves no process running
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)

    stop = Stop()
    signal.signal(signal.SIGTERM, stop.on_terminate)
    signal.signal(signal.SIGINT, stop.on_interrupt)

    def report(document: dict[str, Any]) -> None:
        pipe.write(json.dumps(document) + "\n")
        pipe.flush()

    try:
        import logging

        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
        request = RunRequest(
            config=ranking_config.load(arguments.config),
            config_file=arguments.config,
            root=arguments.root,
            orchestrator=arguments.orchestrator,
            beam_args=arguments.beam_arg,
        )
        with hold_run_lock(request.config, request.root):
            for job in _read_jobs(arguments.job):
                _run_and_report(dataclasses.replace(request, job=job), report, stop)
    except KeyboardInterrupt:
        report({"failure": "interrupted"})
        raise SystemExit(INTERRUPTED) from None
    except BaseException as error:
        if stop.before:
            report({"failure": f"stopped before {stop.before}"})
            raise SystemExit(INTERRUPTED) from None
        traceback.print_exc()
        report({"failure": failure_text(error), "data_error": isinstance(first_cause(error), DataError)})
        raise SystemExit(1) from None


if __name__ == "__main__":
    _main()
