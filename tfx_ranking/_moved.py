"""Forwards the imports that the documentation of tfx-ranking 0.1.0 showed to where the code is now, with a warning.

Release 0.3 removes it.  A module that moved has a row in `MODULES`; a name that left its module has one in `NAMES`.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

MODULES = {
    "tfx_ranking.components.list_examples": "tfx_ranking.components.lists.list_examples",
    "tfx_ranking.components.serving_versions": "tfx_ranking.components.push.versions",
    "tfx_ranking.components.training_data": "tfx_ranking.components.training.training_data",
    "tfx_ranking.pipelines.inspection": "tfx_ranking.pipelines.asking.inspection",
    "tfx_ranking.pipelines.lineage_diff": "tfx_ranking.pipelines.lineage.diff",
    "tfx_ranking.pipelines.lineage_impact": "tfx_ranking.pipelines.lineage.impact",
    "tfx_ranking.pipelines.lineage_pages": "tfx_ranking.pipelines.lineage.views.origin_views",
    "tfx_ranking.pipelines.lineage_serving": "tfx_ranking.pipelines.lineage.served",
    "tfx_ranking.pipelines.lineage_store": "tfx_ranking.pipelines.lineage.store",
    # These were modules and are packages now; `names_of` makes the package's `__getattr__`.
    "tfx_ranking.components.metrics": "tfx_ranking.components.metrics.ranking_metrics",
    "tfx_ranking.components.scorers": "tfx_ranking.components.scorers.networks",
    "tfx_ranking.pipelines.lineage": "tfx_ranking.pipelines.lineage.origin",
}
NAMES: dict[str, str] = {  # "old module:name" to "new module:name"
    "tfx_ranking.components.serving_versions:state": "tfx_ranking._moved:serving_state",
    "tfx_ranking.components.metrics:Convention": "tfx_ranking.components.metrics.convention:Convention",
    "tfx_ranking.components.scorers:Input": "tfx_ranking.components.scorers.inputs:Input",
    "tfx_ranking.components.scorers:network_inputs": "tfx_ranking.components.scorers.inputs:network_inputs",
}


def serving_state(base: Any) -> Any:
    """`ServingBase(base).state()`, which 0.1 documented as a function."""
    return importlib.import_module("tfx_ranking.components.push.versions").ServingBase(base).state()


def install() -> None:
    """Lets Python's import find the modules of `MODULES` under their old names."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def names_of(old: str, warn: bool = True) -> Callable[[str], Any]:
    """Makes a module's `__getattr__`, which looks a name up where it is now."""

    def __getattr__(name: str) -> Any:
        new, _, attribute = NAMES.get(f"{old}:{name}", f"{MODULES[old]}:{name}").partition(":")
        # Python itself asks for names with two underscores, and for a submodule before it imports it.
        if name.startswith("__") or _is_submodule(old, name):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        try:
            value = getattr(importlib.import_module(new), attribute)
        except AttributeError:
            raise AttributeError(f"module {old!r} has no attribute {name!r}") from None
        if warn:
            _warn(f"{old}.{name}", f"{new}.{attribute}")
        return value

    return __getattr__


def _is_submodule(package: str, name: str) -> bool:
    return hasattr(sys.modules[package], "__path__") and importlib.util.find_spec(f"{package}.{name}") is not None


def _warn(old: str, new: str) -> None:
    text = f"{old} is now {new}; the old name will be removed in tfx-ranking 0.3."
    warnings.warn(text, DeprecationWarning, stacklevel=3)  # the line of the import, or of the name's use


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname in MODULES else None

    def exec_module(self, module: types.ModuleType) -> None:
        _warn(module.__name__, MODULES[module.__name__])
        module.__getattr__ = names_of(module.__name__, warn=False)  # type: ignore[method-assign]
