"""Runs Python modules in new processes that need not import TFX again: one process has imported it, and forks.

`run(["-m", "tfx_ranking.pipelines.kubeflow.step", "--node", "A"])` does what the same command line of `python` does:
a process of its own with its own environment, folder and exit code.  Modules of the user are imported again in each.
"""

import atexit
import ctypes
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence

PRELOADED = (
    "tfx_ranking.pipelines.ranking_pipeline",
    "tfx_ranking.pipelines.data_check_pipeline",
    "tfx_ranking.pipelines.kubeflow.compiler",
    "tfx_ranking.pipelines.lineage.store",
    "tfx_ranking.components.scorers.networks",
    "tfx_ranking.components.serving.serving_ranker",
    "tfx_ranking.components.serving.parity",
    "tfx.orchestration.beam.beam_dag_runner",
    "tfx.orchestration.portable.launcher",
    "tfx.orchestration.portable.mlmd.execution_lib",
    "tfx.orchestration.kubeflow.v2.container.kubeflow_v2_entrypoint_utils",
    "tfx.utils.import_utils",
)
_server: subprocess.Popen[bytes] | None = None
_lock = threading.Lock()


def run(
    arguments: Sequence[str], cwd: str | os.PathLike[str] | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run([sys.executable, *arguments])`; stdout holds standard output and error together.

    arguments: `-m MODULE` or a script's path, then its arguments.
    """
    global _server
    with _lock, tempfile.TemporaryDirectory() as folder:
        if _server is None or _server.poll() is not None:
            command = [sys.executable, str(pathlib.Path(__file__))]
            _server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
            atexit.register(_server.kill)
        assert _server.stdin is not None
        assert _server.stdout is not None
        output = pathlib.Path(folder, "output")
        request = {
            "arguments": [*map(str, arguments)],
            "cwd": os.fspath(cwd or os.getcwd()),
            "env": dict(os.environ if env is None else env),
            "output": str(output),
        }
        _server.stdin.write(json.dumps(request).encode() + b"\n")
        code = _server.stdout.readline()
        assert code, "the process that forks has died; its error is above"
        text = output.read_text(errors="replace") if output.exists() else ""
        return subprocess.CompletedProcess([sys.executable, *arguments], int(code), text, "")


def _serve() -> None:
    import importlib

    sys.path.pop(0)  # this script's folder, which a command line would not have
    for name in PRELOADED:
        importlib.import_module(name)
    requests = os.fdopen(0, "rb", closefd=False)
    while line := requests.readline():
        child = os.fork()
        if not child:
            _become(**json.loads(line))
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _become(arguments: list[str], cwd: str, env: dict[str, str], output: str) -> None:
    """The new process.  Does not return."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it does not outlive the tests
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT), 1)
        os.dup2(1, 2)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        sys.path[:0] = [each for each in env.get("PYTHONPATH", "").split(os.pathsep) if each]
        if arguments[0] == "-m":
            sys.path.insert(0, cwd)
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, os.path.dirname(arguments[0]))
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
