"""The tests that `make test-current` chooses, and the folders that test sessions share."""

import pathlib

import import_graph
import made_once
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def tree(tmp_path) -> pathlib.Path:
    """A small project: `plain.py` imports nothing that differs, and its test imports nothing else."""
    for folder in ("components", "pipelines", "tests/support"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "components" / "plain.py").write_text("import json\n")
    (tmp_path / "tests" / "test_plain.py").write_text("from tfx_ranking.components import plain\n")
    return tmp_path


def _reasons(tree: pathlib.Path) -> list[str]:
    import_graph._differing.cache_clear()
    import_graph._tree.cache_clear()
    return import_graph.reasons(tree / "tests" / "test_plain.py", tree)


def test_a_module_without_a_library_that_differs_is_left_out(tree):
    assert _reasons(tree) == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import tensorflow as tf\n", "tensorflow"),
        ("def late():\n    from google.protobuf import text_format\n", "google"),
        ("import datetime\nday = datetime.date.fromisoformat('2024-01-01')\n", "fromisoformat"),
        ("import argparse\n", "argparse"),
    ],
)
def test_a_module_that_begins_to_use_one_gets_its_tests_chosen(tree, source, reason):
    (tree / "components" / "plain.py").write_text(source)
    assert _reasons(tree) == [f"tfx_ranking.components.plain: {reason}"]


def test_an_import_for_type_checkers_is_no_reason(tree):
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tensorflow as tf\n"
    (tree / "components" / "plain.py").write_text(source)
    assert _reasons(tree) == []


def test_the_module_of_the_tests_name_counts_without_an_import(tree):
    (tree / "tests" / "test_plain.py").write_text("import subprocess\n")
    (tree / "components" / "plain.py").write_text("import numpy\n")
    assert _reasons(tree) == ["tfx_ranking.components.plain: numpy"]


def test_of_our_own_files_the_expected_ones_are_chosen():
    tests = ROOT / "tests"
    assert import_graph.reasons(tests / "components" / "test_trainer.py")
    assert import_graph.reasons(tests / "retraining" / "test_schedule_plan.py")
    assert not import_graph.reasons(tests / "whole" / "test_structure.py")


def test_a_folder_is_made_once_and_a_change_to_it_is_an_error(tmp_path, monkeypatch):
    monkeypatch.delenv(made_once.KEPT, raising=False)
    calls = []

    def make(folder: pathlib.Path) -> str:
        calls.append(folder)
        folder.mkdir()
        (folder / "file").write_text("as made")
        return "run-1"

    for _ in range(2):
        folder, returned = made_once.made_once(tmp_path, "set", make)
        assert (returned, len(calls)) == ("run-1", 1)
    (folder / "file").write_text("changed")
    with pytest.raises(AssertionError, match="file"):
        made_once.made_once(tmp_path, "set", make)
    assert made_once.made_once(tmp_path, "set", make)[1] == "run-1"
    assert len(calls) == 2


def test_folders_of_other_sources_are_removed(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setenv(made_once.FOLDER, str(tmp_path / "made"))
    monkeypatch.setenv(made_once.KEPT, "")
    made_once.open_kept(data)
    first = made_once.key(data)
    (data / "one more.csv").write_text("1\n")
    made_once.open_kept(data)
    assert made_once.key(data) != first
    assert [each.name for each in (tmp_path / "made").iterdir()] == [made_once.key(data)]
