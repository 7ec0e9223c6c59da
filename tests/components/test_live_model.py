"""Which version is live, what its identity is, and LiveModel's copy of it."""

import hashlib
import subprocess
import sys

import pytest

from tfx_ranking.components import storage
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import versions


def make_model(directory, content=b"graph"):
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(content)
    (directory / "variables" / "variables.index").write_bytes(b"index")
    (directory / "variables" / "variables.data-00000-of-00001").write_bytes(b"weights")
    (directory / "assets").mkdir()
    return directory


def test_digest_is_over_sorted_paths_and_bytes(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"one")
    one, two = (hashlib.blake2b(content, digest_size=32).hexdigest() for content in (b"one", b"2"))
    expected = hashlib.blake2b(f"a\0003\0{one}\nb/two\0001\0{two}\n".encode(), digest_size=32).hexdigest()
    assert model_files.digest(tmp_path) == expected


def test_digest_knows_a_byte_and_a_name_but_not_a_place(tmp_path):
    first = model_files.digest(make_model(tmp_path / "first"))
    assert model_files.digest(make_model(tmp_path / "elsewhere")) == first
    assert model_files.digest(make_model(tmp_path / "other", content=b"grapH")) != first
    (tmp_path / "first" / "saved_model.pb").rename(tmp_path / "first" / "saved_model.pbx")
    assert model_files.digest(tmp_path / "first") != first
    with pytest.raises(FileNotFoundError, match="nowhere"):
        model_files.digest(tmp_path / "nowhere")


def test_live_is_the_highest_version_that_loads(tmp_path):
    assert versions.live_version(tmp_path / "nowhere") is None
    make_model(tmp_path / "9")
    make_model(tmp_path / "010")
    make_model(tmp_path / ".pushing")
    make_model(tmp_path / "12a")
    make_model(tmp_path / "-3")
    assert versions.live_version(tmp_path) == 10  # a number, not a text: 010 is above 9
    (tmp_path / "11" / "variables").mkdir(parents=True)  # no graph
    make_model(tmp_path / "12")
    (tmp_path / "12" / "variables" / "variables.index").unlink()  # loads in Serving and fails at request time
    assert list(versions.version_directories(tmp_path)) == [9, 10, 11, 12]
    assert versions.live_version(tmp_path) == 10
    make_model(tmp_path / "13")
    (tmp_path / "13" / "saved_model.pb").rename(tmp_path / "13" / "saved_model.cpb")
    assert versions.live_version(tmp_path) == 13


def test_state_of_an_empty_and_of_a_filled_destination(tmp_path):
    base = tmp_path / "serving"
    assert versions.state(base) == {"base": str(base), "version": "", "digest": ""}
    model = make_model(base / "4")
    assert versions.state(base) == {"base": str(base), "version": "4", "digest": model_files.digest(model)}
    assert versions.state("memory://test_live_model/none")["version"] == ""
    with pytest.raises(RankingError, match="nowhere://x: cannot be reached: Unsupported filesystem: 'nowhere'"):
        versions.state("nowhere://x")


def test_asking_what_serves_loads_neither_tensorflow_nor_tfx():
    code = (
        "import sys; import tfx_ranking.components.push.versions, tfx_ranking.components.push.push;"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'tensorflow', 'tfx', 'apache_beam'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


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
    live_model.LiveModel.test_call(destination=versions.state(tmp_path / "serving"), model=artifact)
    assert model_files.digest(tmp_path / "copy" / "Format-Serving") == model_files.digest(source)
    assert artifact.get_int_custom_property("live") == 1
    assert artifact.get_string_custom_property("version") == "4"
    assert artifact.get_string_custom_property("digest") == model_files.digest(source)


def test_live_model_of_an_empty_destination_is_an_empty_directory(tmp_path, live_model):
    artifact = model_artifact(tmp_path / "copy")
    live_model.LiveModel.test_call(destination=versions.state(tmp_path / "serving"), model=artifact)
    assert list((tmp_path / "copy").iterdir()) == []
    assert artifact.get_int_custom_property("live") == 0
    assert artifact.get_string_custom_property("digest") == ""


def test_live_model_of_an_object_store(tmp_path, live_model):
    base = "memory://test_live_model/serving"
    model = make_model(tmp_path / "model")
    for path, file in storage.files_in(model).items():
        storage.copy_file(file, storage.to_path(base) / "4" / path)
    copied = live_model.copy_live(versions.state(base), tmp_path / "copy")
    assert copied == {"base": base, "version": "4", "digest": model_files.digest(model)}
    assert model_files.digest(tmp_path / "copy") == model_files.digest(model)


def test_live_model_refuses_a_destination_that_changed(tmp_path, live_model):
    base = tmp_path / "serving"
    model = make_model(base / "3")
    before = versions.state(base)
    (model / "saved_model.pb").write_bytes(b"edited")
    with pytest.raises(RankingError, match=r"files have changed since this run began.*run the same command again"):
        live_model.copy_live(before, tmp_path / "copy")
    make_model(base / "4")
    with pytest.raises(RankingError, match="version 3 was live when this run began, now it is 4"):
        live_model.copy_live(before, tmp_path / "copy")
    assert live_model.copy_live({"base": str(base)}, tmp_path / "copy")["version"] == "4"  # asked when it runs
