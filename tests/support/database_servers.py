"""Real database servers for a test: started on a free port with an empty data folder of their own, stopped after it.

Their binaries are Debian's (`make test-services` installs them); a server refuses to run as root, so it runs as the
user that its package made.
"""

import contextlib
import glob
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

WANTED = "TFX_RANKING_SERVICES"  # set where the tests that need a server are to run
_START = 60.0  # seconds that a server may take


@contextlib.contextmanager
def mariadb() -> Iterator[dict[str, Any]]:
    """A MariaDB with an empty database; gives ML Metadata's ConnectionConfig as a dict."""
    install, server = _binary("mariadb-install-db"), _binary("mariadbd", "/usr/sbin/mariadbd")
    with _data_folder("mysql") as data:
        _run("mysql", [install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"])
        port, client = _free_port(), [_binary("mariadb"), "--no-defaults", f"--socket={data}/socket", "--user=root"]
        command = [server, "--no-defaults", f"--datadir={data}", f"--socket={data}/socket", f"--port={port}"]
        command += ["--bind-address=127.0.0.1", f"--pid-file={data}/pid"]
        with _serving("mysql", command, data, lambda: _succeeds([*client, "--execute=SELECT 1"])):
            grants = (
                "CREATE DATABASE mlmd; CREATE USER tfx@'127.0.0.1' IDENTIFIED BY 'ranking'; "
                "CREATE USER tfx@localhost IDENTIFIED BY 'ranking'; GRANT ALL ON mlmd.* TO tfx@'127.0.0.1'; "
                "GRANT ALL ON mlmd.* TO tfx@localhost"
            )
            subprocess.run([*client, f"--execute={grants}"], check=True)
            login = {"user": "tfx", "password": "ranking"}
            yield {"mysql": {"host": "127.0.0.1", "port": port, "database": "mlmd", **login}}


@contextlib.contextmanager
def postgresql() -> Iterator[dict[str, Any]]:
    """A PostgreSQL with an empty database; gives ML Metadata's ConnectionConfig as a dict."""
    newest = max(glob.glob("/usr/lib/postgresql/*/bin"), default="", key=lambda each: int(each.split("/")[-2]))
    initdb, server, createdb, ready = (
        _binary(name, f"{newest}/{name}") for name in ("initdb", "postgres", "createdb", "pg_isready")
    )
    with _data_folder("postgres") as data:
        _run("postgres", [initdb, f"--pgdata={data}/db", "--username=tfx", "--auth=trust", "--encoding=UTF8"])
        port = _free_port()
        at = ["--host=127.0.0.1", f"--port={port}", "--username=tfx"]
        command = [server, "-D", f"{data}/db", "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", str(data)]
        with _serving("postgres", command, data, lambda: _succeeds([ready, *at])):
            subprocess.run([createdb, *at, "mlmd"], check=True)
            login = {"user": "tfx", "password": "ranking"}
            yield {"postgresql": {"host": "127.0.0.1", "port": str(port), "dbname": "mlmd", **login}}


@contextlib.contextmanager
def _serving(user: str, command: Sequence[str], data: pathlib.Path, ready: Callable[[], bool]) -> Iterator[None]:
    log = data / "log"
    with log.open("w") as output:
        server = subprocess.Popen(_as(user, command), stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + _START
        while not ready():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield
    finally:
        server.terminate()
        server.wait(_START)


@contextlib.contextmanager
def _data_folder(user: str) -> Iterator[pathlib.Path]:
    # Not pytest's, which nobody but its user can enter.
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{user}-"))
    try:
        if os.getuid() == 0:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder)


def _as(user: str, command: Sequence[str]) -> list[str]:
    return ["runuser", "--user", user, "--", *command] if os.getuid() == 0 else list(command)


def _run(user: str, command: Sequence[str]) -> None:
    done = subprocess.run(_as(user, command), capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def _binary(name: str, otherwise: str = "") -> str:
    if not os.environ.get(WANTED):
        pytest.skip(f"needs a database server; `make test-services` installs and starts it (or set {WANTED}=1)")
    path = shutil.which(name) or shutil.which(otherwise)
    assert path, f"{name}: not installed; `make test-services` installs it"
    return path


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
