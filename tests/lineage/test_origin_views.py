"""The commands `runs` and `lineage`: text and JSON, and how they end."""

import json
import subprocess
import sys

import pytest
from lineage_runs import Shop

from tfx_ranking.components.exported.model_files import digest
from tfx_ranking.pipelines.cli import command_tree


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return Shop(tmp_path_factory.mktemp("shop"))


ONE = [
    ("one", "RankingPusher"),
    ("one", "RankingEvaluator"),
    ("one", "SignatureExporter"),
    ("one", "RankingTrainer"),
    ("one", "RankingExampleGen"),
]


def test_a_reader_that_closes_the_pipe(shop):
    command = [
        sys.executable,
        "-m",
        "tfx_ranking.pipelines.cli",
        "runs",
        "--metadata",
        str(shop.maker.file),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 0


def test_the_commands_print_text_and_json(shop, capsys):
    at = ["--metadata", str(shop.maker.file)]
    assert command_tree.main(["runs", *at]) == 0
    heading, three, reason, _, one = capsys.readouterr().out.splitlines()
    assert heading.split() == ["run", "state", "started", "took", "spans", "metric", "blessed", "pushed"]
    assert three.split()[:2] == ["three", "failed"]
    assert reason == "  RankingTrainer: no memory"
    assert one.split()[-4:] == ["ndcg@10", "0.5000", "yes", "100"]
    assert command_tree.main(["runs", "--json", *at]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == ["three", "two", "one"]
    assert command_tree.main(["lineage", str(shop.served), *at]) == 0
    text = capsys.readouterr().out
    assert f"model {digest(shop.served)}" in text
    assert "abc  7 B  all  /logs/1.csv" in text
    assert 'model      {"hidden": [64]}' in text  # in the trainer's config, not in the exporter's
    assert 'serving    {"default": "predict"}' in text
    assert text.endswith("packages of run one\n  tfx 1.16.0\n")
    assert command_tree.main(["lineage", "100", "--json", *at]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [each["node"] for each in answer["executions"]] == [node for _, node in ONE]
    assert answer["executions"][-1]["files"] == [{"path": "/logs/1.csv", "size": 7, "digest": "abc", "split": "all"}]
    assert answer["receipts"] == [{"run": "one", "packages": {"tfx": "1.16.0"}}]
    assert answer["executions"][0]["outputs"] == [{"name": "p", "artifact": shop.pushed.id}]


def test_a_question_loads_neither_tensorflow_nor_tfx(shop):
    script = """
import contextlib, io, sys
from tfx_ranking.pipelines.cli import command_tree as cli
with contextlib.redirect_stdout(io.StringIO()):
    assert cli.main(["runs", "--metadata", sys.argv[1]]) == 0
    assert cli.main(["lineage", "100", "--metadata", sys.argv[1]]) == 0
    assert cli.main(["served", sys.argv[2], "--metadata", sys.argv[1]]) == 0
    assert cli.main(["impact", "--span", "3", "--metadata", sys.argv[1]]) == 0
    assert cli.main(["models", "--metadata", sys.argv[1]]) == 0
    assert cli.main(["diff", "one", "two", "--metadata", sys.argv[1]]) == 0
print(sorted({name.split(".")[0] for name in sys.modules} & {"tensorflow", "tfx", "apache_beam", "keras", "tfx_bsl"}))
"""
    command = [sys.executable, "-c", script, str(shop.maker.file), str(shop.served.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
