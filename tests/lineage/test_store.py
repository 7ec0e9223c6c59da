"""Reading a store: states of steps, batches, filters, connections."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from lineage_runs import Shop
from lineage_stores import RUNNING, StoreMaker, grpc_server

from tfx_ranking.components.exported.model_files import digest
from tfx_ranking.pipelines.cli import command_tree
from tfx_ranking.pipelines.lineage import diff, impact, origin, served
from tfx_ranking.pipelines.lineage import store as lineage_store
from tfx_ranking.pipelines.metadata import heartbeat, run_records


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return Shop(tmp_path_factory.mktemp("shop"))


def _with_a_running_step(root):
    maker = StoreMaker(root)
    examples = maker.artifact("Examples", "RankingExampleGen/examples/1", span=0)
    maker.step("one", "RankingExampleGen", {}, {"examples": examples})
    maker.step("one", "RankingTrainer", {"examples": examples}, {}, RUNNING)
    return maker


def _running(maker):
    [step] = [each for each in maker.store.get_executions() if each.last_known_state == RUNNING]
    return step


def _state(maker):
    (run,) = origin.runs(lineage_store.connect(str(maker.file)))
    return run.state


def test_a_step_whose_process_is_gone_is_dead(tmp_path):
    maker = _with_a_running_step(tmp_path)
    assert _state(maker) == "running"  # no lock anywhere: its process may still run
    maker.folder.mkdir(parents=True)
    lock = maker.folder / run_records.LOCK
    lock.touch()
    assert _state(maker) == "dead"
    (run,) = origin.runs(lineage_store.connect(str(maker.file)))
    assert run.reason == "RankingTrainer: its process died"
    os.utime(lock, (0, 0))  # the process began before the step did
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert _state(maker) == "running"
        os.utime(lock, (4e9, 4e9))  # another process holds it, which began later
        assert _state(maker) == "dead"


def test_a_step_that_the_next_run_ended_stays_dead(tmp_path):
    maker = _with_a_running_step(tmp_path)
    run_records.end_dead_executions(maker.store, "shop")
    assert _state(maker) == "dead"


def test_a_step_on_another_machine_lives_by_its_heartbeat(tmp_path):
    maker = _with_a_running_step(tmp_path)
    step = _running(maker)
    step.custom_properties[heartbeat.HEARTBEAT].double_value = time.time()
    maker.store.put_executions([step])
    maker.folder.mkdir(parents=True)
    (maker.folder / run_records.LOCK).touch()  # nobody holds it here, but the step may run on another machine
    assert _state(maker) == "running"
    assert run_records.end_dead_executions(maker.store, "shop") == [], "a local run of the pipeline leaves it alone"
    step = _running(maker)
    step.custom_properties[heartbeat.HEARTBEAT].double_value -= heartbeat.DEAD_AFTER
    maker.store.put_executions([step])
    assert _state(maker) == "dead"
    assert run_records.end_dead_executions(maker.store, "shop", locked=False) == [step.id]
    assert _state(maker) == "dead"


def test_a_heartbeat_is_renewed_while_the_step_works(tmp_path, monkeypatch):
    maker = _with_a_running_step(tmp_path)
    step = _running(maker)
    monkeypatch.setattr(heartbeat, "EVERY", 0.05)
    with heartbeat.write_heartbeats(maker.connection, step.id):
        seen = set()
        end = time.monotonic() + 20
        while len(seen - {0.0}) < 2 and time.monotonic() < end:
            seen.add(_running(maker).custom_properties[heartbeat.HEARTBEAT].double_value)
    assert len(seen - {0.0}) >= 2


def test_a_container_ends_only_its_own_earlier_try(tmp_path):
    maker = _with_a_running_step(tmp_path)
    step = _running(maker)
    assert run_records.end_dead_executions(maker.store, "shop", locked=False) == []
    assert run_records.end_dead_executions(maker.store, "shop", locked=False, again=[step.id]) == [step.id]


def test_a_run_between_two_steps_is_running(tmp_path):
    maker = StoreMaker(tmp_path)
    maker.step("one", "LiveModel", {}, {"model": maker.artifact("Model", "LiveModel/model/1", live=0)})
    maker.folder.mkdir(parents=True)
    lock = maker.folder / run_records.LOCK
    lock.touch()
    os.utime(lock, (0, 0))
    assert _state(maker) == "done"
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert _state(maker) == "running"


def test_the_number_of_calls_does_not_grow_with_the_steps(tmp_path):
    def calls(lists):
        maker = StoreMaker(tmp_path / str(lists))
        examples = maker.artifact("Examples", "RankingExampleGen/examples/1", span=0)
        maker.step("one", "RankingExampleGen", {}, {"examples": examples})
        for i in range(lists):
            model = maker.artifact("Model", f"RankingTrainer/model/{i}")
            maker.step("one", "RankingTrainer", {"examples": examples}, {"model": model})
        store = lineage_store.connect(str(maker.file))
        counted, inner = [], store._store

        class Counting:
            def __getattr__(self, name):
                counted.append(name)
                return getattr(inner, name)

        store._store = Counting()
        lineage = origin.downstream(store, "1").executions
        assert [(each.pipeline, each.run, each.node) for each in lineage] == [("shop", "one", "RankingTrainer")] * lists
        return sorted(counted)

    assert calls(2) == calls(70)


def test_ml_metadata_without_filters(shop):
    store = lineage_store.connect(str(shop.maker.file))
    store._filters = False  # as in ML Metadata of TFX 1.21
    first = digest(shop.served)
    for query in ("100", first[:9], str(shop.worse.id), str(shop.served)):
        assert origin.upstream(store, query) == origin.upstream(shop.store, query)
        assert origin.downstream(store, query) == origin.downstream(shop.store, query)
    assert store.with_digests([first, "none"]) == shop.store.with_digests([first, "none"])
    assert [each.id for each in store.with_digest(first)] == [shop.exported.id, shop.pushed.id, shop.copy.id]


def test_where_the_store_is_searched(shop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command_tree.main(["runs"]) == 1
    error = capsys.readouterr().err
    assert all(way in error for way in ("--metadata", "ranking.yaml", "./metadata.sqlite"))
    shutil.copy(shop.maker.file, tmp_path / "metadata.sqlite")
    assert command_tree.main(["runs"]) == 0
    (tmp_path / "ranking.yaml").write_text(
        "name: shop\ndata: {input: x.csv, format: csv}\nitems: {f: {}}\nmetadata: {sqlite: kept/there.sqlite}\n"
    )
    assert command_tree.main(["runs"]) == 1
    assert "kept/there.sqlite: no such ML Metadata store" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()  # reading creates no folder
    connection = {"sqlite": {"filename_uri": str(shop.maker.file), "connection_mode": "READONLY"}}
    assert command_tree.main(["runs", "--metadata", json.dumps(connection)]) == 0
    (tmp_path / "notes").write_text("no database")
    assert command_tree.main(["runs", "--metadata", "notes"]) == 1
    assert "notes: not an ML Metadata store" in capsys.readouterr().err


def test_half_a_connection_is_refused(capsys):
    assert (
        command_tree.main(
            ["runs", "--metadata", json.dumps({"postgresql": {"host": "db", "port": "5432", "user": "tfx"}})]
        )
        == 1
    )
    assert capsys.readouterr().err == "tfx-ranking: postgresql at db:5432: the connection must name dbname.\n"
    assert command_tree.main(["runs", "--metadata", json.dumps({"mysql": {"port": 9}})]) == 1
    lacking = "the connection must name host or socket, database"
    assert capsys.readouterr().err == f"tfx-ranking: mysql at localhost:9: {lacking}.\n"


@pytest.mark.parametrize(
    "connection", [{"mysql": {"port": 9, "database": "a"}}, {"postgresql": {"port": "9", "dbname": "a"}}]
)
def test_a_database_that_does_not_answer(connection, capfd):
    ((kind, server),) = connection.items()
    server |= {"host": "127.0.0.1", "user": "tfx"}
    assert command_tree.main(["runs", "--metadata", json.dumps(connection)]) == 1
    (line,) = capfd.readouterr().err.splitlines()  # and nothing from ML Metadata's own log
    assert line.startswith(f"tfx-ranking: {kind} at 127.0.0.1:9: cannot be reached (")
    assert line.endswith(
        "Check that the server runs there and can be reached from this machine, and that user, password and database "
        "are right."
    )


def test_a_store_behind_grpc_answers_the_same(shop, capsys):
    with grpc_server(shop.maker.store) as port:
        at = json.dumps({"host": "127.0.0.1", "port": port})
        behind = lineage_store.connect(at)
        assert origin.runs(behind) == origin.runs(shop.store)
        assert origin.upstream(behind, "100") == origin.upstream(shop.store, "100")
        assert origin.downstream(behind, "two") == origin.downstream(shop.store, "two")
        assert served.models(behind) == served.models(shop.store)
        assert impact.of_span(behind, 3) == impact.of_span(shop.store, 3)
        assert impact.of_file(behind, "1.csv") == impact.of_file(shop.store, "1.csv")
        assert diff.diff(behind, "one", "two") == diff.diff(shop.store, "one", "two")
        period = str(shop.served.parent), *served.moment("today")
        assert served.served(behind, *period) == served.served(shop.store, *period)
        assert command_tree.main(["runs", "--metadata", at]) == 0
        capsys.readouterr()
    assert command_tree.main(["runs", "--metadata", at]) == 1  # the server is gone
    assert (
        f"tfx-ranking: 127.0.0.1:{port}: ML Metadata could not answer get_contexts_by_type" in capsys.readouterr().err
    )


KILLED = """
import os, signal, sqlite3, sys
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("PRAGMA cache_size = 5")  # in pages: what exceeds it is written to the file before the transaction ends
store.execute("BEGIN IMMEDIATE")
store.execute("CREATE TABLE half (made)")
store.executemany("INSERT INTO half VALUES (randomblob(?))", [[1000]] * 1000)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_store_whose_writer_was_killed(shop, tmp_path):
    file = tmp_path / "metadata.sqlite"
    shutil.copy(shop.maker.file, file)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file)])
    assert killed.returncode == -9
    assert (tmp_path / "metadata.sqlite-journal").stat().st_size > 0
    assert origin.runs(lineage_store.connect(str(file))) == origin.runs(shop.store)
