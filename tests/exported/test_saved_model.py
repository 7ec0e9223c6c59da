"""The signatures of a SavedModel, whole and split, read without TensorFlow."""

import pytest
import saved_models

from tfx_ranking.components.errors import DataError, RankingError
from tfx_ranking.components.exported import saved_model

PREDICT, REGRESS = "tensorflow/serving/predict", "tensorflow/serving/regress"
PROTOS = {"inputs": ("string", [-1])}
SCORES = {"scores": ("float", [-1, -1]), "sizes": ("int64", [-1])}
SIGNATURES = {
    "predict": (PREDICT, PROTOS, SCORES),
    "list_example": (PREDICT, PROTOS, SCORES),
    "regress": (REGRESS, PROTOS, {"outputs": ("float", [-1])}),
}


@pytest.mark.parametrize("compression", [None, "brotli", "zstd"])
def test_a_split_model_has_the_same_signatures(tmp_path, compression):
    whole = saved_model.signature_definitions(saved_models.save(tmp_path, SIGNATURES))
    saved_models.split(tmp_path, compression)
    assert not (tmp_path / "saved_model.pb").exists()
    assert saved_model.signature_definitions(tmp_path) == whole
    assert [signature.name for signature in whole] == sorted(SIGNATURES)


def test_the_split_form_is_tensorflows(tmp_path):
    """Its C++ code reads what the test above reads, checksums and all: the same message, however it is compressed."""
    from tensorflow.core.protobuf import fingerprint_pb2
    from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting

    prints = []
    for compression in (None, "brotli", "zstd"):
        saved_models.split(saved_models.save(tmp_path, SIGNATURES), compression)
        fingerprint = fingerprint_pb2.FingerprintDef.FromString(fingerprinting.CreateFingerprintDef(str(tmp_path)))
        for field in {"uuid"} & set(fingerprint.DESCRIPTOR.fields_by_name):
            fingerprint.ClearField(field)  # TensorFlow 2.21 draws a new one each time
        prints.append(fingerprint)
    assert prints[0].saved_model_checksum
    assert prints[0] == prints[1] == prints[2]
    file = tmp_path / "saved_model.cpb"
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)
    with pytest.raises(fingerprinting.FingerprintException):
        fingerprinting.CreateFingerprintDef(str(tmp_path))


def test_a_broken_or_missing_model_is_an_error(tmp_path):
    with pytest.raises(RankingError, match=r"saved_model.pb or saved_model.cpb; found neither"):
        saved_model.signature_definitions(tmp_path)
    saved_models.save(tmp_path, SIGNATURES)
    saved_models.split(tmp_path)
    file = tmp_path / "saved_model.cpb"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"saved_model.cpb: the file is cut off"):
        saved_model.signature_definitions(tmp_path)
