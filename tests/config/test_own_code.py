"""The user's own functions, by dotted path: their digests, and that a second run in a process takes the edited file."""

import importlib

import pytest

from tfx_ranking.components.config import own_code, parse
from tfx_ranking.components.errors import ConfigError

PATHS = {
    "transform.preprocessing_fn": "shop_features.prepare",
    "model.scorer": "shop_scorers.build",
    "serving.postprocessing": "shop_answers.best_three",
}


CONFIG = parse(
    {
        "name": "shop",
        "data": {"input": "x", "format": "csv"},
        "items": {"price": {}},
        **{section: {name: path} for (section, name), path in zip((key.split(".") for key in PATHS), PATHS.values())},
    }
)


def test_the_config_lists_the_paths_that_are_set():
    assert parse({"name": "shop", "data": {"input": "x", "format": "csv"}, "items": {"price": {}}}).own_code == {}
    assert CONFIG.own_code == PATHS


@pytest.mark.parametrize("key", PATHS)
def test_each_function_is_imported_again_after_an_edit(key, tmp_path):
    path = PATHS[key]
    module, _, name = path.rpartition(".")
    for value in ("old", "edited"):
        (tmp_path / f"{module}.py").write_text(f"def {name}():\n    return {value!r}\n")
        with own_code.importable(CONFIG.own_code.values(), tmp_path):
            assert own_code.load(key, path)() == value
    with pytest.raises(ConfigError, match=rf"^{key}: 'no_such_module\.f' cannot be imported .*PYTHONPATH"):
        own_code.load(key, "no_such_module.f")
    with pytest.raises(ConfigError, match=f"^{key}: '{module}.g' cannot be imported"):
        own_code.load(key, f"{module}.g")
    assert importlib.import_module(module)


def test_an_edited_line_changes_the_functions_digest(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "their_preprocessing.py"
    module.write_text("def features(inputs, custom_config):\n    return inputs\n")
    before = own_code.module_digest("their_preprocessing.features")
    assert own_code.module_digest("their_preprocessing.features") == before
    module.write_text("def features(inputs, custom_config):\n    return {**inputs}\n")
    assert own_code.module_digest("their_preprocessing.features") != before


def test_an_error_starts_with_the_key():
    for key in ("transform.preprocessing_fn", "serving.postprocessing", "model.scorer"):
        with pytest.raises(ConfigError, match=rf"^{key}: no_such_module\.f: there is no module 'no_such_module'"):
            own_code.digest(key, "no_such_module.f")


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ("no_such_module.f", r"no_such_module\.f: there is no module 'no_such_module'.*PYTHONPATH"),
        ("f", r"f: there is no module ''"),
        ("tfx_ranking.components.errors.f", r"errors\.py has no 'f'; it defines .*'DataError'"),
        ("half_written.f", r"half_written\.f: .*half_written\.py, line 2: "),
    ],
)
def test_a_missing_function_is_named_with_what_to_do(dotted, message, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "half_written.py").write_text("def f(inputs, custom_config):\n    return {\n")
    with pytest.raises(ConfigError, match=message):
        own_code.module_digest(dotted)
