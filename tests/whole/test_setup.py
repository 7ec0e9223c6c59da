"""setup.sh on machines that are not this one: PATH holds a fake getconf, uname, Pythons and uv."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = [
    "awk",
    "bash",
    "cat",
    "chmod",
    "cut",
    "dirname",
    "flock",
    "head",
    "mkdir",
    "paste",
    "rm",
    "sed",
    "sha256sum",
    "sort",
]


@pytest.fixture
def machine(tmp_path):
    """A checkout and a PATH that holds little else than what a test puts there: `machine(name, script)`."""
    checkout, path = tmp_path / "checkout", tmp_path / "bin"
    (checkout / "requirements").mkdir(parents=True)
    path.mkdir()
    shutil.copy(ROOT / "setup.sh", checkout)
    shutil.copy(ROOT / "pyproject.toml", checkout)
    for python in ("py310", "py313"):
        (checkout / "requirements" / f"{python}.txt").write_text(f"only-for=={python}\n")
    for tool in TOOLS:
        if where := shutil.which(tool):
            (path / tool).symlink_to(where)

    def put(name, script, folder=path):
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)

    put("uname", 'echo "$([ "$1" = -s ] && echo Linux || echo x86_64)"')
    put("getconf", "echo glibc 2.36")
    put.checkout, put.path = checkout, path
    return put


def run(machine, *arguments, **environment):
    environment = {"PATH": str(machine.path), "HOME": str(machine.checkout), **environment}
    return subprocess.run(
        [machine.checkout / "setup.sh", *arguments], env=environment, capture_output=True, text=True, cwd="/"
    )


@pytest.mark.parametrize(
    ("glibc", "pythons", "chosen"),
    [
        ("2.36", ["3.10", "3.13"], "3.10"),
        ("2.17", ["3.10"], "3.10"),
        ("2.39", ["3.10", "3.13"], "3.10"),  # TFX 1.16 is the default line
        ("2.39", ["3.11", "3.13"], "3.13"),
        ("2.41", ["3.12", "3.14"], "3.12"),
    ],
)
def test_the_python_that_fits_is_chosen(machine, glibc, pythons, chosen):
    machine("getconf", f"echo glibc {glibc}")
    for version in pythons:
        machine(f"python{version}", f"echo {version} /opt/python{version}")
    done = run(machine, "which")
    assert (done.stdout, done.stderr, done.returncode) == (f"{chosen} /opt/python{chosen}\n", "", 0)


def test_a_python_that_does_not_fit_the_glibc_is_named_with_the_one_to_install(machine):
    machine("python3.11", "echo 3.11 /usr/bin/python3.11")
    machine("python3.13", "exit 127")  # a pyenv shim whose version is not switched on
    done = run(machine)
    assert done.returncode == 1
    assert "glibc is 2.36; Pythons found: 3.11 /usr/bin/python3.11." in done.stderr
    assert "Python 3.11 to 3.13 (TFX 1.21) need glibc 2.39" in done.stderr
    assert "Install Python 3.10, for instance" in done.stderr
    assert len(done.stderr.splitlines()) < 8  # a message, not a resolver's wall of text
    assert not (machine.checkout / ".venv").exists()


def test_no_python_on_a_new_glibc_may_be_either_line(machine):
    machine("getconf", "echo glibc 2.41")
    done = run(machine, "which")
    assert done.returncode == 1
    assert "Pythons found: none" in done.stderr
    assert "Install Python 3.10 or 3.13" in done.stderr


@pytest.mark.parametrize(
    ("name", "script", "message"),
    [
        ("getconf", "echo glibc 2.12", "need glibc 2.17 or newer; here is 2.12"),
        ("getconf", "exit 1", "here is another C library"),
        ("uname", "echo Darwin", "needs Linux on x86_64"),
    ],
)
def test_a_machine_without_wheels_of_tfx_is_refused(machine, name, script, message):
    machine(name, script)
    machine("python3.10", "echo 3.10 /opt/python3.10")
    done = run(machine, "which")
    assert done.returncode == 1
    assert message in done.stderr


def test_a_python_can_be_named(machine):
    machine("python3.10", "echo 3.10 /opt/python3.10")
    machine("elsewhere", "echo 3.10 /opt/elsewhere")
    done = run(machine, "which", TFX_RANKING_PYTHON=str(machine.path / "elsewhere"))
    assert done.stdout == "3.10 /opt/elsewhere\n"


def test_a_second_run_does_nothing_until_a_pin_changes(machine, tmp_path):
    log = tmp_path / "log"
    headers = tmp_path / "include"
    headers.mkdir()
    (headers / "Python.h").touch()
    python = machine.path / "python3.10"
    machine("python3.10", f'case "$2" in *sysconfig*) echo {headers} ;; *) echo 3.10 {python} ;; esac')
    machine("c++", "")
    machine(
        "uv",
        f"""echo "$@" >> {log}
case "$1" in
  list) ;;
  venv) mkdir -p .venv/bin && cat {python} > .venv/bin/python && chmod +x .venv/bin/python ;;
  pip) cat > /dev/null ;;
esac""",
    )

    def calls():
        done = run(machine)
        assert done.returncode == 0, done.stderr
        lines = [line for line in log.read_text().splitlines() if "list" not in line] if log.exists() else []
        log.unlink(missing_ok=True)
        return [line.split()[0] for line in lines], done.stderr

    names, output = calls()
    assert names == ["venv", "pip"]
    assert "Setting up .venv with Python 3.10" in output
    assert calls() == ([], "")
    with open(machine.checkout / "requirements" / "py310.txt", "a") as pins:
        pins.write("one-more==1\n")
    names, _ = calls()
    assert names == ["pip"]  # the environment stays, its packages follow
    assert calls() == ([], "")


def test_a_missing_header_is_reported_before_anything_is_installed(machine):
    machine(
        "python3.10", f'case "$2" in *sysconfig*) echo {os.devnull} ;; *) echo 3.10 {machine.path}/python3.10 ;; esac'
    )
    machine("c++", "")
    done = run(machine)
    assert done.returncode == 1
    assert "Python.h is missing" in done.stderr
