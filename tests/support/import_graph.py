"""Chooses the test files that must also run on the current line of TFX, by what the tested modules import.

Input: a test file.  Output: the reasons why its result can differ between the two lines; none means that it cannot.

To add a library whose version differs between the lines: put its import name in `LIBRARIES`.
"""

import ast
import functools
import pathlib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# The import names of packages of which requirements/py310.txt and py313.txt pin different versions, as far as our code
# imports them; `google` is protobuf.
LIBRARIES = {
    *("apache_beam", "google", "keras", "kfp", "kfp_server_api", "ml_metadata", "numpy", "pandas", "pyarrow", "scipy"),
    *("sklearn", "tensorboard", "tensorflow", "tensorflow_data_validation", "tensorflow_metadata"),
    *("tensorflow_serving", "tensorflow_transform", "tfx", "tfx_bsl"),
}

# What "What's new" of Python 3.11 to 3.13 lists and our code uses: datetime.fromisoformat reads more forms (3.11),
# utcnow and utcfromtimestamp are deprecated (3.12), strptime warns about a day without a year (3.13); argparse words
# its help and errors differently (3.12, 3.13); zoneinfo reads the system's zones.
STANDARD_MODULES = {"argparse", "zoneinfo"}
STANDARD_METHODS = {"fromisoformat", "strptime", "utcfromtimestamp", "utcnow"}

# Tests that start whole commands, build the package, or import every public module.
WHOLE_COMMANDS = {
    "test_documentation.py",
    "test_museum.py",
    "test_notebooks.py",
    "test_package.py",
    "test_public_names.py",
    "test_ranking_config.py",
    "test_setup.py",
}


def files(root: pathlib.Path = ROOT) -> dict[str, pathlib.Path]:
    """Our modules, by the name under which a test imports them."""
    named = {}
    for top in ("components", "pipelines"):
        for file in sorted((root / top).rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            named[".".join(("tfx_ranking", *(part for part in parts if part != "__init__")))] = file
    return named | {file.stem: file for file in sorted((root / "tests" / "support").glob("*.py"))}


def reasons(test_file: pathlib.Path, root: pathlib.Path = ROOT) -> list[str]:
    """Why the result of this test file can differ between the lines, e.g. `tfx_ranking.components.pusher: tfx`.

    It looks at the test file, at each module of ours that it imports, and at the module that it is named after; not at
    what those modules import in turn, since another test file tests that.
    """
    named = files(root)
    subject = test_file.stem.removeprefix("test_")
    tested = {name for name in named if name.split(".")[-1] == subject}
    tested |= {name for name in _imports(test_file, frozenset(named)) if name in named}
    why = [f"{test_file.name}: {name}" for name in _differing(test_file)]
    if test_file.name in WHOLE_COMMANDS:
        why.append(f"{test_file.name}: whole commands")
    return why + [f"{name}: {each}" for name in sorted(tested) for each in _differing(named[name])]


@functools.cache
def _differing(file: pathlib.Path) -> tuple[str, ...]:
    """The libraries and parts of the standard library that differ between the lines and that this file uses itself."""
    imported = {name.split(".")[0] for name in _imports(file, frozenset())}
    methods = {node.attr for node in ast.walk(_tree(file)) if isinstance(node, ast.Attribute)}
    return tuple(sorted(imported & (LIBRARIES | STANDARD_MODULES) | methods & STANDARD_METHODS))


def _imports(file: pathlib.Path, modules: frozenset[str]) -> Iterator[str]:
    """Each module that a file imports, also inside functions; not what it imports for type checkers only."""
    tree = _tree(file)
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    types_only = {id(inner) for node in guards for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in types_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules else node.module


@functools.cache
def _tree(file: pathlib.Path) -> ast.Module:
    return ast.parse(file.read_text())
