"""Opens a page in headless Chromium, by its DevTools protocol over two pipes, so that no driver is needed."""

import base64
import contextlib
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

COMMAND = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
PATIENCE = 60  # seconds; a machine may be busy


class Chromium:
    """One page of a running Chromium."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = os.fdopen(read, "rb", buffering=0), os.fdopen(write, "wb", buffering=0)
        self._unread = b""
        self._calls = 0
        self._session = ""
        self.console: list[str] = []  # the console's messages and the exceptions
        self.requests: list[str] = []  # the addresses that were loaded
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(self, file: pathlib.Path, width: int, height: int = 900, dark: bool = False) -> None:
        """Loads a file in a window of this size (pixels)."""
        self.console.clear()
        self.requests.clear()
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        loading = self._call("Page.navigate", url=file.resolve().as_uri())
        if "errorText" in loading:
            raise AssertionError(f"{file}: {loading['errorText']}")
        while not self.evaluate("document.readyState == 'complete' && location.protocol == 'file:'"):
            time.sleep(0.02)

    def evaluate(self, script: str) -> Any:
        """Runs JavaScript in the page; returns its value as JSON types."""
        done = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise AssertionError(done["exceptionDetails"])
        return done["result"].get("value")

    def press(self, key: str) -> None:
        """Presses Tab, Enter or Escape."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27}[key]
        pressed = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"text": "\r"} if key == "Enter" else {}
        self._call("Input.dispatchKeyEvent", type="keyDown", **pressed, **text)
        self._call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def screenshot(self, file: pathlib.Path, whole: bool = True) -> None:
        """Writes a PNG of the whole page, or of its visible part."""
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._session = ""
        self._call("Browser.close")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        request = {"id": self._calls, "method": method, "params": parameters}
        if self._session:
            request["sessionId"] = self._session
        self._write.write(json.dumps(request).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._calls:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        kind, details = event.get("method"), event.get("params", {})
        if kind == "Runtime.exceptionThrown":
            self.console.append(str(details["exceptionDetails"].get("text")))
        elif kind == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(each.get("value")) for each in details["args"]))
        elif kind == "Log.entryAdded":
            self.console.append(details["entry"]["text"])
        elif kind == "Network.requestWillBeSent":
            self.requests.append(details["request"]["url"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._read], [], [], PATIENCE)
            if not ready:
                raise AssertionError(f"Chromium did not answer for {PATIENCE} s")
            read = self._read.read(1 << 20)
            if not read:
                raise AssertionError("Chromium ended")
            self._unread += read
        answer, _, self._unread = self._unread.partition(b"\0")
        return json.loads(answer)


@contextlib.contextmanager
def chromium(profile: pathlib.Path) -> Iterator[Chromium]:
    """Starts Chromium with a new profile, and ends it afterwards."""
    pipes = [os.pipe(), os.pipe()]
    to_read, write, read, to_write = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for pipe in pipes for end in pipe)
    for end in (end for pipe in pipes for end in pipe):
        os.close(end)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    options += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run"]
    # Chromium reads commands from descriptor 3 and answers on 4.
    start = "import os, sys; [os.dup2(int(sys.argv[i]), 2 + i) for i in (1, 2)]; os.execv(sys.argv[3], sys.argv[3:])"
    process = subprocess.Popen(
        [sys.executable, "-c", start, str(to_read), str(to_write), str(COMMAND), *options],
        pass_fds=(to_read, to_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(to_write)
    try:
        page = Chromium(read, write)
        yield page
        page.close()
        process.wait(10)
    finally:
        process.kill()
        process.wait()
