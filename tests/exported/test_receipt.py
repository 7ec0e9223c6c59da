"""What a served directory says of where it came from is what ML Metadata says."""

import json

import numpy as np
import pytest
from tfx.types.standard_artifacts import Examples

from tfx_ranking.components.errors import DataError, RankingError
from tfx_ranking.components.exported import model_files, receipt
from tfx_ranking.components.exported.model_files import LINEAGE_IN_MODEL
from tfx_ranking.components.push.ledger import Entry, made_by


def test_outside_of_a_run_there_are_packages_and_no_run():
    examples = Examples()
    examples.id, examples.uri, examples.span = 7, "some/where", 3
    examples.set_string_custom_property("fingerprint", "abc")
    examples.set_int_custom_property("lists_out", 0)
    examples.set_int_custom_property("other", 1)
    described = receipt.receipt({"examples": examples})
    assert (described["pipeline"], described["run"]) == ("", "")
    assert described["artifacts"] == {"examples": [{"id": 7, "type": "Examples", "uri": "some/where"}]}
    assert described["data"] == {"span": 3, "fingerprint": "abc", "lists_out": 0}
    assert described["packages"]["numpy"] == np.__version__


def write_receipt(model, content):
    (model / LINEAGE_IN_MODEL).parent.mkdir(parents=True)
    (model / LINEAGE_IN_MODEL).write_bytes(content)
    return model


def test_a_model_without_a_receipt(tmp_path):
    assert receipt.read(tmp_path) is None
    assert receipt.live_spans(None) == []
    with pytest.raises(DataError, match="does not say on which spans it was trained"):
        receipt.live_spans(tmp_path)


def test_the_spans_of_the_live_model(tmp_path):
    assert receipt.live_spans(write_receipt(tmp_path, b'{"data": {"spans": "[1, 3]"}}')) == [1, 3]


@pytest.mark.parametrize("content", [b"{", b"", b"[]", b'"run"', b"\xff\xfe"], ids=repr)
def test_a_damaged_receipt_is_named(tmp_path, content):
    model = write_receipt(tmp_path, content)
    for read in (receipt.read, receipt.live_spans):
        with pytest.raises(RankingError, match=r"lineage\.json: expected a lineage receipt.*Restore the file"):
            read(model)


def test_a_push_does_not_need_the_receipt(tmp_path):
    assert made_by(Entry(3), write_receipt(tmp_path, b"{")) == Entry(3)


def test_a_served_directory_leads_back_to_its_run_and_its_data(real_run):
    run = real_run("ml4ir-csv")
    described = json.loads((run.served / LINEAGE_IN_MODEL).read_text())
    assert (described["pipeline"], described["run"]) == (run.config.name, run.run_id)
    store = run.store()
    for name, node, channel in (
        ("trained_model", "RankingTrainer", "model"),
        ("transform_graph", "Transform", "transform_graph"),
        ("examples", "RankingExampleGen", "examples"),
    ):
        (listed,) = described["artifacts"][name]
        (artifact,) = store.get_artifacts_by_id([listed["id"]])
        assert artifact.uri == listed["uri"] == str(run.uri(node, channel))
    examples = run.properties("RankingExampleGen", "examples")
    for name in ("fingerprint", "lists_out", "items_out"):
        assert described["data"][name] == examples[name]
    # The digest of the directory is a property of the artifact that an execution of this run has put out.
    exported = run.properties("SignatureExporter", "model")
    assert exported["digest"] == model_files.digest(run.served)
    assert int(exported["fingerprint"], 16) > 0
    (execution,) = store.get_executions_by_id([int(described["execution"])])
    assert execution.type.endswith("SignatureExporter")
