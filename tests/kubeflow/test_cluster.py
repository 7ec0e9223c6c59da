"""Uploading, running and scheduling a compiled pipeline, by KFP's client against a server that reads each request."""

import json
import pathlib

import kubeflow_stub
import pytest

from tfx_ranking.pipelines.cli import command_tree

GOLDEN = pathlib.Path(__file__).with_name("kubeflow_golden.yaml")


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # no context of Kubeflow's that a developer has
    with kubeflow_stub.serving() as server:
        yield server


@pytest.fixture
def file(tmp_path) -> pathlib.Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text(GOLDEN.read_text())
    return path


def results(capsys, *command: str) -> list[dict]:
    assert command_tree.main([*command, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def versions(server) -> list[dict]:
    """Without the one that the server makes of a pipeline that is uploaded for the first time."""
    return [each for each in server.there["pipeline_versions"] if "first of" not in each["pipeline_version_id"]]


def test_the_first_time_everything_is_made(server, file, capsys):
    done = results(capsys, "submit", str(file), "--host", server.host, "--span", "17", "--learning-rate", "0.01")
    assert server.changes == ["pipelines", "pipeline_versions", "experiments", "runs"]
    assert [(each["kind"], each["how"]) for each in done] == [
        ("pipeline", "uploaded"),
        ("version", "uploaded"),
        ("experiment", "there"),
        ("run", "started"),
    ]
    [run] = server.there["runs"]
    assert run["runtime_config"]["parameters"] == {"span": "17", "learning_rate": 0.01}
    assert run["runtime_config"]["pipeline_root"] == "gs://artifacts/shop", (
        "the server does not look for it in the file"
    )
    assert run["pipeline_version_reference"] == {
        "pipeline_id": server.there["pipelines"][0]["pipeline_id"],
        "pipeline_version_id": versions(server)[0]["pipeline_version_id"],
    }
    assert run["display_name"] == f"{versions(server)[0]['display_name']} learning_rate=0.01 span=17"


def test_the_second_time_nothing_is(server, file, capsys):
    first = results(capsys, "submit", str(file), "--host", server.host)
    changes = list(server.changes)
    again = results(capsys, "submit", str(file), "--host", server.host)
    assert server.changes == changes
    assert [each["id"] for each in again] == [each["id"] for each in first]
    assert again[-1]["how"] == "under way already"


def test_a_run_that_has_ended_is_followed_by_another(server, file, capsys):
    results(capsys, "submit", str(file), "--host", server.host)
    server.there["runs"][0]["state"] = "SUCCEEDED"
    assert results(capsys, "submit", str(file), "--host", server.host)[-1]["how"] == "started"
    assert len(server.there["runs"]) == 2
    assert len(versions(server)) == 1


def test_another_file_is_another_version_of_the_pipeline(server, file, capsys):
    results(capsys, "submit", str(file), "--host", server.host)
    file.write_text(GOLDEN.read_text() + "# edited\n")
    results(capsys, "submit", str(file), "--host", server.host)
    assert len(server.there["pipelines"]) == 1
    assert len({each["display_name"] for each in versions(server)}) == 2


def test_a_namespace_has_pipelines_of_its_own(server, file, capsys):
    for namespace in ("alice", "bob", "alice"):
        results(capsys, "submit", str(file), "--host", server.host, "--namespace", namespace)
    assert [each["namespace"] for each in server.there["pipelines"]] == ["alice", "bob"]
    assert [each["namespace"] for each in server.there["experiments"]] == ["alice", "bob"]
    assert len(server.there["runs"]) == 2


def test_a_recurring_run(server, file, capsys):
    command = ["schedule", str(file), "--kubeflow", "--host", server.host]
    first = results(capsys, *command, "--cron", "0 3 * * *")
    [made] = server.there["recurring_runs"]
    assert made["runtime_config"]["pipeline_root"] == "gs://artifacts/shop"
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}, "Kubeflow's cron has seconds"
    assert (made["max_concurrency"], made["no_catchup"]) == ("1", True)
    changes = list(server.changes)
    assert results(capsys, *command, "--cron", "0 3 * * *")[-1]["id"] == first[-1]["id"]
    assert server.changes == changes, "nothing twice"
    changed = results(capsys, *command, "--every", "6h")
    assert [each["how"] for each in changed[-2:]] == ["made", "replaced"]
    [left] = server.there["recurring_runs"]
    assert left["trigger"] == {"periodic_schedule": {"interval_second": "21600"}}


def test_a_disabled_one_is_created_again(server, file, capsys):
    command = ["schedule", str(file), "--kubeflow", "--host", server.host, "--every", "1d"]
    results(capsys, *command)
    server.there["recurring_runs"][0]["status"] = "DISABLED"
    results(capsys, *command)
    assert [each["status"] for each in server.there["recurring_runs"]] == ["ENABLED"]


@pytest.mark.parametrize("command", [["submit"], ["schedule", "--kubeflow", "--every", "6h"]], ids=lambda c: c[0])
def test_dry_run_prints_the_calls_and_makes_none(command, file, capsys):
    assert command_tree.main([command[0], str(file), *command[1:], "--dry-run"]) == 0  # there is no server
    shown = capsys.readouterr().out
    last = "run_pipeline(" if command[0] == "submit" else "create_recurring_run("
    for call in ("upload_pipeline(", "upload_pipeline_version(", "create_experiment(", last):
        assert call in shown


def test_weekdays_have_the_names_that_kubeflow_knows(file, capsys):
    """It counts them from 0 to 6, and refuses cron's other Sunday."""
    assert command_tree.main(["schedule", str(file), "--kubeflow", "--cron", "0 3 * * 5-7", "--dry-run"]) == 0
    assert "cron_expression='0 0 3 * * fri,sat,sun'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--span", "abc"], "--span: expected a number, or nothing for the newest; got 'abc'"),
        (["--learning-rate", "-1"], "--learning-rate: expected a number above 0; got -1.0"),
        (["--learning-rate", "nan"], "--learning-rate: expected a number above 0; got nan"),
    ],
)
def test_a_parameter_that_no_run_could_use_is_not_sent(option, message, file, capsys):
    for command in (["submit", str(file)], ["schedule", str(file), "--kubeflow", "--every", "6h"]):
        assert command_tree.main([*command, "--dry-run", *option]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--cron": "0 3 * *"}, "--cron: expected five fields"),
        ({"--every": "6h", "--retries": "1"}, "--retries goes without --kubeflow"),
        ({}, "expected either --cron"),
    ],
)
def test_a_refused_schedule(change, message, file, capsys):
    options = [word for option in change.items() for word in option]
    assert command_tree.main(["schedule", str(file), "--kubeflow", "--dry-run", *options]) == 2
    assert message in capsys.readouterr().err


def test_what_goes_with_kubeflow_alone(tmp_path, capsys):
    assert command_tree.main(["schedule", str(tmp_path / "ranking.yaml"), "--every", "6h", "--host", "x"]) == 2
    assert "--host goes with --kubeflow" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            None,
            "no such file; make one with "
            "`tfx-ranking compile ranking.yaml --image IMAGE --root ROOT -o pipeline.yaml`.",
        ),
        (
            "name: shop\ndata: {}\n",
            "this is a ranking.yaml, not a compiled pipeline; make one with `tfx-ranking compile {file} --image IMAGE "
            "--root ROOT -o pipeline.yaml`.",
        ),
        (
            "- notes\n",
            "not a compiled pipeline; make one with `tfx-ranking compile ranking.yaml --image IMAGE --root ROOT "
            "-o pipeline.yaml`.",
        ),
    ],
)
def test_a_file_that_is_not_a_pipeline(text, message, tmp_path, capsys):
    file = tmp_path / "shop.yaml"
    if text is not None:
        file.write_text(text)
    assert command_tree.main(["submit", str(file), "--dry-run"]) == 1
    assert capsys.readouterr().err == f"tfx-ranking: {file}: {message.format(file=file)}\n"


def test_the_servers_message_is_printed(server, file, capsys):
    results(capsys, "submit", str(file), "--host", server.host)
    server.refuse = 503
    assert command_tree.main(["submit", str(file), "--host", server.host]) == 1
    assert "503" in capsys.readouterr().err


def test_no_server(file, capsys):
    assert command_tree.main(["submit", str(file), "--host", "http://127.0.0.1:9"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    refused = "[Errno 111] Connection refused"
    assert error == (
        "tfx-ranking: Kubeflow Pipelines does not answer at http://127.0.0.1:9; set its address with --host. "
        f"({refused})"
    )


def test_the_stub_refuses_what_the_models_do_not_have():
    kubeflow_stub.checked({"display_name": "a"}, "V2beta1Experiment")
    for body, model in [
        ({"display_nam": "a"}, "V2beta1Experiment"),
        ({"display_name": 3}, "V2beta1Experiment"),
        ({"display_name": "a", "experiment_id": "b"}, "V2beta1Run"),
    ]:
        with pytest.raises(ValueError, match=model):
            kubeflow_stub.checked(body, model)
