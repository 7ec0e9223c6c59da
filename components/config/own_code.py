"""Imports and fingerprints the user's own functions, which ranking.yaml names by dotted path.

Input: a dotted path, as in "shop.features.prepare".  Output: the function, or the digest of its module.  The keys that
can hold a path are `transform.preprocessing_fn`, `model.scorer` and `serving.postprocessing`;
`RankingConfig.own_code` lists the paths of a config.
"""

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tfx_ranking.components.choices.functions import load_function
from tfx_ranking.components.errors import ConfigError, Refused


def check_form(key: str, path: str) -> None:
    """Raises Refused when `path` does not have the form of a dotted path.  Nothing is imported."""
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise Refused(key, f"expected the dotted path of a function, as in package.module.function; got {path!r}")


def load(key: str, path: str) -> Callable[..., Any]:
    """The function behind the path that `key` holds.  Raises ConfigError when it cannot be imported."""
    return load_function(path, key)


def load_module(path: str) -> None:
    """Imports the module behind a dotted path, for what it registers with Keras."""
    importlib.import_module(path.rpartition(".")[0])


def digest(key: str, path: str | None) -> str:
    """Digest of the source behind the path that `key` holds, which changes when the user edits it; "" for no path.

    Components take it as a parameter, so that an edited function is run again.  Raises ConfigError.
    """
    try:
        return module_digest(path) if path else ""
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None


def module_digest(path: str) -> str:
    """Digest of the source of the module behind a dotted path: 32 hexadecimal digits.

    The module is located but not run.  Raises ConfigError when the module does not exist, has a syntax error or has no
    such name.

    >>> len(module_digest("tfx_ranking.components.preprocessing.preprocessing_fn"))
    32
    """
    module, _, name = path.rpartition(".")
    try:
        spec = importlib.util.find_spec(module) if module else None
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"{path}: there is no module {module!r} to import. Expected package.module.function; "
            "put the module's folder on PYTHONPATH, or install it."
        )
    source = pathlib.Path(spec.origin).read_bytes()
    if spec.origin.endswith(".py"):
        try:
            names = _names(source)
        except SyntaxError as error:
            raise ConfigError(f"{path}: {spec.origin}, line {error.lineno}: {error.msg}.") from None
        if name not in names and "*" not in names:
            raise ConfigError(f"{path}: {spec.origin} has no {name!r}; it defines {sorted(names)}. Define it there.")
    return hashlib.blake2b(source, digest_size=16).hexdigest()


@contextlib.contextmanager
def importable(paths: Iterable[str], folder: pathlib.Path) -> Iterator[None]:
    """Within it, imports look into `folder` first, and the modules behind `paths` are read from their files again.

    paths: dotted paths, as in `RankingConfig.own_code`.  A module that an earlier run in this process has imported is
    forgotten, since its file may have changed.
    """
    for path in paths:
        module = path.rpartition(".")[0]
        if not module.startswith("tfx_ranking."):
            sys.modules.pop(module, None)
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _names(source: bytes) -> set[str]:
    """The names that a module's source binds; "*" when it imports all names of another module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
    return names
