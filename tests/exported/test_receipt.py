"""What a served directory says of where it came from is what ML Metadata says."""

import json

import numpy as np
from tfx.types.standard_artifacts import Examples

from tfx_ranking.components.exported import receipt
from tfx_ranking.components.push import versions
from tfx_ranking.components.push.versions import LINEAGE_IN_MODEL


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
        (given,) = described["artifacts"][name]
        (artifact,) = store.get_artifacts_by_id([given["id"]])
        assert artifact.uri == given["uri"] == str(run.uri(node, channel))
    examples = run.properties("RankingExampleGen", "examples")
    for name in ("fingerprint", "lists_out", "items_out"):
        assert described["data"][name] == examples[name]
    # The digest of the directory is a property of the artifact that an execution of this run has put out.
    exported = run.properties("SignatureExporter", "model")
    assert exported["digest"] == versions.digest(run.served)
    assert int(exported["fingerprint"], 16) > 0
    (execution,) = store.get_executions_by_id([int(described["execution"])])
    assert execution.type.endswith("SignatureExporter")
