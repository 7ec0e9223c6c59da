"""The public face: what `tfx_ranking` lists, what it loads, and the imports that an earlier release showed."""

import importlib
import pathlib
import subprocess
import sys
import warnings

import pytest

import tfx_ranking
from tfx_ranking import lineage

MUSEUM = pathlib.Path(__file__).parent.parent / "museum"
SHOWN = sorted({line for file in MUSEUM.glob("*/imports.txt") for line in file.read_text().split()})
# Names that the documentation showed from modules that did not move: no warning.
STAYED = ("config", "evaluator", "example_gen", "live_model", "preprocessing", "pusher", "schema_gen")
STAYED = (*STAYED, "signature_exporter", "trainer", "demo", "search_logs")


@pytest.mark.parametrize("face", [tfx_ranking, lineage], ids=lambda face: face.__name__)
def test_each_listed_name_is_there_and_no_other_is_public(face):
    assert len(set(face.__all__)) == len(face.__all__)
    for name in face.__all__:
        assert getattr(face, name) is not None
    public = {name for name in vars(face) if not name.startswith("_")}
    assert public - set(face.__all__) <= {"importlib", "TYPE_CHECKING", "Any", "components", "pipelines"}


def test_the_list_is_what_type_checkers_see():
    source = pathlib.Path(tfx_ranking.__file__).read_text()
    for name in tfx_ranking.__all__:
        assert f" {name}\n" in source or f" {name}," in source, f"{name} is not imported under TYPE_CHECKING"
    assert set(tfx_ranking._PUBLIC) | {"lineage"} == set(tfx_ranking.__all__)


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = tfx_ranking.Trainer


def test_the_import_loads_nothing_heavy():
    code = """
import sys, tfx_ranking, tfx_ranking.components, tfx_ranking.pipelines, tfx_ranking.lineage
tfx_ranking.load_config, tfx_ranking.SIGNATURES, tfx_ranking.RankingError
print(sorted({name.split(".")[0] for name in sys.modules} & {"tensorflow", "tfx", "apache_beam", "keras", "pandas"}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("shown", SHOWN)
def test_an_import_that_a_release_showed_still_works(shown):
    module, _, name = shown.partition(":")
    forget = [key for key in sys.modules if key == module and module in tfx_ranking._moved.MODULES]
    packages = {"tfx_ranking.components.metrics", "tfx_ranking.components.scorers", "tfx_ranking.pipelines.lineage"}
    for key in set(forget) - packages:
        del sys.modules[key]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert getattr(importlib.import_module(module), name) is not None
    ours = [each for each in caught if "will be removed in tfx-ranking" in str(each.message)]
    assert len(ours) == (0 if module.rpartition(".")[2] in STAYED else 1)
    assert all(each.category is DeprecationWarning for each in ours)
