"""Replaces the process of `tfx-ranking retrain` in tests of a schedule: it does what the test wrote down.

    python scheduled_job.py FOLDER

`FOLDER/steps.json` is a list with one entry for each run; the last entry also counts for all further runs.  An entry
has the `exit` code, the line that the run `prints`, and `waits`: true for a run whose component ends when `FOLDER/go`
exists.  Like the real command, it ends with 130: after its component on SIGTERM, at once on SIGINT.  Each run adds a
line to `FOLDER/ran`.
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
    print(step.get("prints", ""))
    print("log: somewhere")
    return step["exit"]


if __name__ == "__main__":
    sys.exit(main())
