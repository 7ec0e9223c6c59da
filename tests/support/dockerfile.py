"""Follows a Dockerfile's steps where no container engine is: in this very file system, which has to be the base's.

Stages share the file system, so `COPY --from` only asks that the path is there.  Every instruction that stands in the
file is carried out or refused.
"""

import pathlib
import re
import shlex
import shutil
import subprocess
from typing import NamedTuple


class Instruction(NamedTuple):
    """One step."""

    name: str
    rest: str


class Image(NamedTuple):
    """What the steps led to."""

    user: str
    environment: dict[str, str]
    entrypoint: list[str]


def instructions(file: pathlib.Path) -> list[Instruction]:
    """The steps in their order, continued lines joined, comments left out."""
    lines = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [Instruction(*line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def follow(file: pathlib.Path, base: str, outside: dict[str, str]) -> Image:
    """Carries out the steps.

    base: the only image that FROM may name.  outside: variables of a build that come from the builder, a proxy's.
    Raises AssertionError for a step that fails, and ValueError for one that this does not know.
    """
    user, environment, entrypoint, folder, arguments = "root", {}, [], pathlib.Path("/"), {}
    for name, rest in instructions(file):
        if name == "FROM":
            assert rest.split()[0] == base, rest
            user, environment, folder, arguments = "root", {}, pathlib.Path("/"), {}
        elif name == "ARG":
            key, _, value = rest.partition("=")
            arguments[key] = value.strip('"')
        elif name == "RUN":
            variables = {
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                **outside,
                **arguments,
                **environment,
            }
            done = subprocess.run(
                ["sh", "-ec", rest], cwd=folder, env={"HOME": "/root", **variables}, capture_output=True, text=True
            )
            assert done.returncode == 0, f"RUN {rest}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        elif name == "WORKDIR":
            folder = folder / rest
            folder.mkdir(parents=True, exist_ok=True)
        elif name == "COPY" and rest.startswith("--from="):
            assert all(pathlib.Path(path).exists() for path in rest.split()[1:]), rest
        elif name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                _copy(file.parent / source, folder / target, target.endswith("/"))
        elif name == "ENV":
            key, _, value = rest.partition("=")
            environment[key] = value
        elif name == "USER":
            user = rest
        elif name == "ENTRYPOINT":
            entrypoint = [word.strip(",") for word in shlex.split(rest.strip("[]"))]
        else:
            raise ValueError(f"{file}: {name} is not known here")
    return Image(user, environment, entrypoint)


def _copy(source: pathlib.Path, target: pathlib.Path, into: bool) -> None:
    if into:
        target = target / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)
