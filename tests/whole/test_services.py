"""The same pipelines and the same questions on real database servers, four pipelines at once on each.

`make test-services` installs and starts MariaDB and PostgreSQL; without it these tests are skipped.
"""

import json
import os
import pathlib
import shutil
import subprocess

import database_servers
import kubeflow_replay
import object_server
import pytest
import run_support
from lineage_answers import answers

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import storage
from tfx_ranking.components.push import versions
from tfx_ranking.pipelines.cli import command_tree
from tfx_ranking.pipelines.kubeflow import compiler
from tfx_ranking.pipelines.lineage import origin
from tfx_ranking.pipelines.lineage import store as lineage_store

SERVERS = {"mariadb": database_servers.mariadb, "postgresql": database_servers.postgresql}
SHOPS = ("north", "east", "south", "west")


def _open(folder: pathlib.Path, name: str, connection=None) -> run_support.Shop:
    folder.mkdir()
    shop = run_support.open_shop(folder)
    shop.set("name", name)
    shop.set("data.input", str(folder / "logs" / "*.csv"))  # of its own, though the bytes are equal
    if connection:
        shop.set("metadata.connection", connection)
    return shop


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory):
    """One pipeline's answers on a store that nobody shares."""
    shop = _open(tmp_path_factory.mktemp("sqlite") / "alone", "alone")
    shop.run()
    return _answers(shop, lineage_store.connect(str(shop.folder / "metadata.sqlite")))


@pytest.fixture(scope="module", params=SERVERS)
def shops(request, tmp_path_factory):
    """Four pipelines that ran at the same time on one store, and the store's connection."""
    with SERVERS[request.param]() as connection:
        root = tmp_path_factory.mktemp(request.param)
        opened = [_open(root / name, name, connection) for name in SHOPS]
        under_way = [
            subprocess.Popen(shop.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for shop in opened
        ]
        outputs = [process.communicate()[0] for process in under_way]
        assert [process.returncode for process in under_way] == [0] * 4, "\n".join(outputs)
        yield opened, json.dumps(connection)


def _answers(shop: run_support.Shop, store: lineage_store.Store, bucket: str = "") -> dict[str, object]:
    """bucket: where the logs lie and the models go, if not in the shop's folder."""
    base = f"{bucket}/serving/shop" if bucket else str(shop.base)
    served = origin.upstream(store, f"{base}/{versions.ServingBase(base).live_version()}")
    files = [file for each in served.executions for file in each.files]
    assert {file.path.rpartition("/")[0] for file in files} == {f"{bucket or shop.folder}/logs"}
    return answers(store, shop.folder.name, base)


def test_the_answers_are_those_of_sqlite(shops, sqlite):
    opened, connection = shops
    store = lineage_store.connect(connection)
    for shop in opened:
        assert _answers(shop, store) == sqlite


def test_nothing_is_lost_between_four_pipelines(shops):
    store = shops[0][0].store  # all four have the same
    executions = store.get_executions()
    assert sorted(each.type.rpartition(".")[2] for each in executions) == sorted(run_support.COMPONENTS * 4)
    assert {each.last_known_state for each in executions} == {each.COMPLETE for each in executions}
    events = store.get_events_by_execution_ids([each.id for each in executions])
    made = [each.artifact_id for each in events if each.type == each.OUTPUT]
    assert len(made) == len(set(made)) == len(store.get_artifacts())  # each is given once, none is left over
    names = [each.name for each in store.get_execution_types()]
    assert len(names) == len(set(names))


def test_a_served_model_is_known_wherever_it_was_copied_to(shops, tmp_path, capsys):
    opened, connection = shops
    for shop in opened:
        copied = tmp_path / shop.folder.name
        shutil.copytree(shop.base / str(versions.ServingBase(shop.base).live_version()), copied)
        assert command_tree.main(["lineage", str(copied), "--metadata", connection]) == 0
        assert str(shop.folder / "logs") in capsys.readouterr().out


def test_a_run_on_kubeflow_gives_the_same_answers_from_the_same_store(shops, sqlite, tmp_path):
    """The compiled pipeline, container by container, logs and models in S3; its runs stand beside those of the four."""
    opened, connection = shops
    if "postgresql" in connection:
        pytest.skip("one server is enough: what a container publishes is what the local runs do")
    settings = json.loads(connection)
    password, settings["mysql"]["password"] = settings["mysql"]["password"], "${MLMD_PASSWORD}"
    shop = _open(tmp_path / "cluster", "cluster", settings)
    with object_server.serving("shops") as bucket:
        shop.set("kubeflow.env", {"AWS_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"]})
        keys = {name: f"logs/{name}" for name in object_server.SECRETS}
        shop.set("kubeflow.secrets", {"MLMD_PASSWORD": "mlmd/password", **keys})
        for file in (shop.folder / "logs").iterdir():
            storage.to_path(f"{bucket}/logs/{file.name}").write_bytes(file.read_bytes())
        config = compiler.reachable(
            ranking_config.load(shop.config_file), [f"{bucket}/logs/*.csv"], f"{bucket}/serving/shop"
        )
        text = compiler.compile(config, "registry/ranking:1", str(shop.folder / "root"), shop.folder).yaml
        shutil.rmtree(shop.folder / "logs")
        assert f'"password": "{password}"' not in text
        secrets = {"mlmd/password": password, **{f"logs/{name}": os.environ[name] for name in object_server.SECRETS}}
        run = kubeflow_replay.run(text, shop.folder / "root", {}, modules=shop.folder, secrets=secrets)
        store = lineage_store.connect(connection)
        assert origin.runs(store)[0].id == run
        assert _answers(shop, store, bucket) == sqlite
    assert not shop.base.exists()
    assert _answers(opened[0], store) == sqlite
