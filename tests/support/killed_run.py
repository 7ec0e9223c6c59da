"""A pipeline run that is killed (SIGKILL) inside one of the named components, whichever works first.

    python killed_run.py MOMENT NODE,NODE,… CONFIG --root ROOT

MOMENT is `output`: at the first file that the component writes (into its outputs, or into the push destination), or
`done`: when its work is finished and nothing of it recorded.  A component that is answered from the cache does no work
and is not killed.  Nothing else differs from a run: the rest is `tfx_ranking.pipelines.running.process`.
"""

import os
import pathlib
import runpy
import signal
import sys
import threading
import time


def main() -> None:
    moment, nodes = sys.argv[1], sys.argv[2].split(",")
    del sys.argv[1:3]

    from tfx.orchestration.portable import launcher

    run_executor = launcher.Launcher._run_executor

    def killed(self, execution_info):
        if self._pipeline_node.node_info.id not in nodes:
            return run_executor(self, execution_info)
        if moment == "output":
            threading.Thread(target=wait_for_output, args=[folders_of(execution_info)], daemon=True).start()
        run_executor(self, execution_info)
        kill()

    launcher.Launcher._run_executor = killed
    runpy.run_module("tfx_ranking.pipelines.running.process", run_name="__main__", alter_sys=True)


def folders_of(execution_info) -> list[pathlib.Path]:
    outputs = [artifact.uri for artifacts in execution_info.output_dict.values() for artifact in artifacts]
    destination = execution_info.exec_properties.get("destination", {}).get("base")
    staging = [f"{destination}/.pushing"] if destination else []
    return [pathlib.Path(folder) for folder in outputs + staging]


def wait_for_output(folders: list[pathlib.Path]) -> None:
    while not any(names for folder in folders for _, _, names in os.walk(folder)):
        time.sleep(0.001)
    kill()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # the signal takes every thread; none goes on in the meantime


if __name__ == "__main__":
    main()
