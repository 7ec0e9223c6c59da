"""The digest of a model's files."""

import hashlib

import pytest
from bare_models import make_model

from tfx_ranking.components.exported import model_files


def test_digest_is_over_sorted_paths_and_bytes(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"one")
    one, two = (hashlib.blake2b(content, digest_size=32).hexdigest() for content in (b"one", b"2"))
    expected = hashlib.blake2b(f"a\0003\0{one}\nb/two\0001\0{two}\n".encode(), digest_size=32).hexdigest()
    assert model_files.digest(tmp_path) == expected


def test_digest_depends_on_bytes_and_names_but_not_on_the_directory(tmp_path):
    first = model_files.digest(make_model(tmp_path / "first"))
    assert model_files.digest(make_model(tmp_path / "copy")) == first
    assert model_files.digest(make_model(tmp_path / "other", content=b"grapH")) != first
    (tmp_path / "first" / "saved_model.pb").rename(tmp_path / "first" / "saved_model.pbx")
    assert model_files.digest(tmp_path / "first") != first
    with pytest.raises(FileNotFoundError, match="nowhere"):
        model_files.digest(tmp_path / "nowhere")
