"""LiveModel's copy of the version that serves."""

import pytest
from bare_models import make_model

from tfx_ranking.components import storage
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push.versions import ServingBase


@pytest.fixture(scope="module")
def live_model():
    from tfx_ranking.components import live_model

    return live_model


def model_artifact(uri):
    from tfx.types.standard_artifacts import Model

    artifact = Model()
    artifact.uri = str(uri)
    uri.mkdir()
    return artifact


def test_live_model_copies_the_version_that_serves(tmp_path, live_model):
    make_model(tmp_path / "serving" / "3")
    source = make_model(tmp_path / "serving" / "4", content=b"newer")
    artifact = model_artifact(tmp_path / "copy")
    live_model.LiveModel.test_call(destination=ServingBase(tmp_path / "serving").state(), model=artifact)
    assert model_files.digest(tmp_path / "copy" / "Format-Serving") == model_files.digest(source)
    assert artifact.get_int_custom_property("live") == 1
    assert artifact.get_string_custom_property("version") == "4"
    assert artifact.get_string_custom_property("digest") == model_files.digest(source)


def test_live_model_of_an_empty_destination_is_an_empty_directory(tmp_path, live_model):
    artifact = model_artifact(tmp_path / "copy")
    live_model.LiveModel.test_call(destination=ServingBase(tmp_path / "serving").state(), model=artifact)
    assert list((tmp_path / "copy").iterdir()) == []
    assert artifact.get_int_custom_property("live") == 0
    assert artifact.get_string_custom_property("digest") == ""


def test_live_model_of_an_object_store(tmp_path, live_model):
    base = "memory://test_live_model/serving"
    model = make_model(tmp_path / "model")
    for path, file in storage.files_in(model).items():
        storage.copy_file(file, storage.to_path(base) / "4" / path)
    copied = live_model.copy_live(ServingBase(base).state(), tmp_path / "copy")
    assert copied == {"base": base, "version": "4", "digest": model_files.digest(model)}
    assert model_files.digest(tmp_path / "copy") == model_files.digest(model)


def test_live_model_refuses_a_destination_that_changed(tmp_path, live_model):
    base = tmp_path / "serving"
    model = make_model(base / "3")
    before = ServingBase(base).state()
    (model / "saved_model.pb").write_bytes(b"edited")
    with pytest.raises(RankingError, match=r"files have changed since this run began.*run the same command again"):
        live_model.copy_live(before, tmp_path / "copy")
    make_model(base / "4")
    with pytest.raises(RankingError, match="version 3 was live when this run began, now it is 4"):
        live_model.copy_live(before, tmp_path / "copy")
    assert live_model.copy_live({"base": str(base)}, tmp_path / "copy")["version"] == "4"  # asked when it runs
