"""The structure of the code, read from its imports: docs/architecture.md says which package may import which."""

import ast
import collections
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOPS = ("components", "pipelines", "tfx_ranking")
HEAVY = {"tensorflow", "tfx", "keras", "tensorflow_transform", "tensorflow_data_validation", "apache_beam", "tfx_bsl"}


class Import(NamedTuple):
    """One import statement's target, and where it stands."""

    target: str  # a module's full name
    line: int
    late: bool  # inside a function
    types_only: bool  # under TYPE_CHECKING


def _name(file: pathlib.Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "tfx_ranking" else parts
    return ".".join(("tfx_ranking", *(part for part in parts if part != "__init__")))


FILES = {_name(file): file for top in TOPS for file in sorted((ROOT / top).rglob("*.py"))}


def _imports(module: str) -> Iterator[Import]:
    tree = ast.parse(FILES[module].read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    late = {id(inner) for node in functions for inner in ast.walk(node)}
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    types_only = {id(inner) for node in guards for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [name if name in FILES else str(node.module) for name in submodules]
        else:
            continue
        for target in targets:
            yield Import(target, node.lineno, id(node) in late, id(node) in types_only)


IMPORTS = {module: tuple(_imports(module)) for module in FILES}


def _package(module: str) -> str:
    """`components.config` of a module in that folder; a module beside the folders is a package of its own."""
    parts = module.split(".")[1:]
    return ".".join(parts if FILES[module].name == "__init__.py" or len(parts) <= 2 else parts[:-1])


def _layers() -> list[set[str]]:
    """The rows of the table in docs/architecture.md, the lowest layer first."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = re.search(r"<!-- layers -->\n(.*?)\n\n", text, re.DOTALL)
    assert table, "docs/architecture.md has no table of layers"
    rows = [line.split("|")[1] for line in table[1].splitlines()[2:]]
    return [set(re.findall(r"`([\w.]+)`", row)) for row in reversed(rows)]


LAYERS = _layers()
LEVEL = {package: level for level, layer in enumerate(LAYERS) for package in layer}
PACKAGES = {_package(module) for module in FILES} - {"", "components", "pipelines"}


def test_each_package_stands_in_one_layer():
    assert sum(map(len, LAYERS)) == len(LEVEL)
    assert set(LEVEL) == PACKAGES


def test_nothing_imports_upwards_and_no_two_packages_import_each_other():
    """A package may import what stands in a layer below its own; late imports count, imports for types alone do not."""
    wrong = [
        f"{FILES[module].relative_to(ROOT)}:{each.line} imports {each.target}"
        for module in FILES
        for each in IMPORTS[module]
        if each.target in FILES and not each.types_only and module != "tfx_ranking"
        if (here := _package(module)) not in ("", "components", "pipelines")
        and (there := _package(each.target)) not in (here, "", "components", "pipelines")
        and LEVEL[there] >= LEVEL[here]
    ]
    assert wrong == []


def test_no_two_modules_import_each_other():
    graph = {
        module: {each.target for each in IMPORTS[module] if each.target in FILES and not each.types_only}
        for module in FILES
        if module != "tfx_ranking"
    }
    state: dict[str, int] = {}

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert state.get(module) != 1, f"a circle of imports: {' → '.join((*way, module))}"
        if module in state or module not in graph:
            return
        state[module] = 1
        for target in graph[module] - {module}:
            visit(target, (*way, module))
        state[module] = 2

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", sorted(module for module in FILES if module.startswith("tfx_ranking.components.")))
def test_tfx_is_imported_by_the_component_modules_alone(module):
    below = FILES[module].parent != ROOT / "components"
    assert not below or not [each for each in IMPORTS[module] if each.target.split(".")[0] == "tfx"]


LIGHT = ("components.choices", "components.config", "components.exported", "components.push", "pipelines.lineage")


@pytest.mark.parametrize("package", LIGHT)
def test_light_packages_load_neither_tensorflow_nor_tfx(package):
    """No module of the package imports them, not even late; none that it imports does so when it is loaded."""
    own = [module for module in FILES if f"{module}.".startswith(f"tfx_ranking.{package}.")]
    todo = list(own)
    seen: set[str] = set()
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        for each in IMPORTS[module]:
            if not each.types_only and (module in own or not each.late):
                assert each.target.split(".")[0] not in HEAVY, f"{module}:{each.line} imports {each.target}"
                todo += [each.target] if each.target in FILES and not each.late else []


def test_no_folder_has_more_than_sixteen_files():
    folders = collections.Counter(
        file.parent
        for top in TOPS
        for file in (ROOT / top).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    )
    assert {str(folder.relative_to(ROOT)): count for folder, count in folders.items() if count > 16} == {}


def test_no_two_classes_have_one_name():
    classes = collections.defaultdict(list)
    for module, file in FILES.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                classes[node.name.lstrip("_")].append(module)
    assert {name: modules for name, modules in classes.items() if len(modules) > 1} == {}


def test_each_module_has_a_docstring():
    for module, file in FILES.items():
        if file.name != "__init__.py" or file.read_text().strip():
            assert ast.get_docstring(ast.parse(file.read_text())) or file.name in ("__init__.py", "__main__.py"), module


def test_each_test_file_stands_in_a_folder_of_its_package():
    """`tests/<package>/test_*.py`; behaviours of several packages in tests/whole, helpers in tests/support."""
    last = {package.rpartition(".")[2] for package in PACKAGES} | {"components", "pipelines", "whole"}
    files = [file for file in (ROOT / "tests").rglob("test_*.py") if "typings" not in file.parts]
    assert {file.parent.name for file in files} <= last
    assert len({file.name for file in files}) == len(files)
