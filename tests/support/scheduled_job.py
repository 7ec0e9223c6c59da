"""Stands in for the process of `tfx-ranking retrain` where a schedule is tested: does what the test wrote down.

    python scheduled_job.py FOLDER

`FOLDER/steps.json` is a list, one entry a run (the last one holds for all further runs): `exit` code, what it `says`,
and `waits`, true for a run whose component ends when `FOLDER/go` is there.  As the real one it ends with 130 after its
component when it is asked to stop by SIGTERM, and at once by SIGINT.  Each run adds a line to `FOLDER/ran`.
"""

import json
import os
import pathlib
import signal
import sys
import time


def main() -> int:
    folder = pathlib.Path(sys.argv[1])
    steps = json.loads((folder / "steps.json").read_text())
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    ran = folder / "ran"
    before = len(ran.read_text().splitlines()) if ran.exists() else 0
    with ran.open("a") as file:
        file.write(f"{os.getpid()} {time.time()}\n")
    step = steps[min(before, len(steps) - 1)]
    while step.get("waits") and not (folder / "go").exists():
        time.sleep(0.02)
    if stop:
        print("stopped before the next component")
        return 130
    print(step.get("says", ""))
    print("log: somewhere")
    return step["exit"]


if __name__ == "__main__":
    sys.exit(main())
