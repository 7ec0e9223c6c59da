"""Measures the questions of lineage on a store of 2,000 runs, and compares them with two plain walks over ML Metadata.

Makes a store of 18,000 executions and 100,000 artifacts: one run per daily span, trained from the model of the day
before except on every thirtieth day; three of four models are pushed.  A command is measured as a whole process, from
its start to its last line, with its peak memory.  A question is measured in one process, in turns with a walk that
makes one call per node and with ML Metadata's own get_lineage_subgraph (TFX 1.16 has it).  Each turn opens the store
again, and the answers are compared.  The fastest turn counts.

    python benchmarks/lineage.py [--runs 2000] [--turns 5] [--store FOLDER]
"""

import argparse
import contextlib
import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from ml_metadata import errors
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from tfx_ranking.components.exported import model_files
from tfx_ranking.pipelines.lineage import origin
from tfx_ranking.pipelines.lineage import store as lineage_store

ARTIFACTS = 50  # of each run
FRESH = 30  # days after which a training starts without an earlier model
INPUTS = (mlmd.Event.INPUT, mlmd.Event.DECLARED_INPUT, mlmd.Event.INTERNAL_INPUT)
Nodes = tuple[frozenset[int], frozenset[int]]  # ids of executions, and of all their inputs and outputs
PIPELINE = "shop"
DAY = 86_400
FIRST = 1_700_000_000  # the version that the first run pushed
NODES: tuple[str, ...] = (
    "LiveModel",
    "RankingExampleGen",
    "StatisticsGen",
    "RankingSchemaGen",
    "Transform",
    "RankingTrainer",
)
NODES += ("SignatureExporter", "RankingEvaluator", "RankingPusher")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=2_000)
    arguments.add_argument("--turns", type=int, default=5)
    arguments.add_argument("--store", type=pathlib.Path, help="the folder of the store; made if it is missing")
    options = arguments.parse_args()
    print(f"{options.runs:,} runs, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.store or pathlib.Path(temporary)
        file = folder / "metadata.sqlite"
        if not file.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            maker = Maker(folder, options.runs)
            for day in range(options.runs):
                maker.run(day)
        # Counted in SQLite, without loading them: a child process starts with the memory of this one.
        with contextlib.closing(sqlite3.connect(file)) as opened:
            counts = [
                opened.execute(f"SELECT COUNT(*) FROM {kind}").fetchone()[0] for kind in ("Execution", "Artifact")
            ]
        print(f"{counts[0]:,} executions, {counts[1]:,} artifacts")
        day = options.runs // 2 // FRESH * FRESH + FRESH - 2  # the second to last of a chain
        _commands(file, day, options.turns)
        _walks(file, day, options.turns)


def _commands(file: pathlib.Path, day: int, turns: int) -> None:
    print("\ncommand, whole process             seconds    of CPU    memory")
    start = day // FRESH * FRESH
    for command in (
        ["runs"],
        ["lineage", f"version:{FIRST + day * DAY}"],
        ["impact", "--span", str(start)],
        ["served", str(file.parent / "serving")],
        ["models"],
        ["diff", f"run-{day - 1:04}", f"run-{day:04}"],
        ["runs", "--limit", "0"],
    ):
        seconds, cpu, memory = zip(*(_process([*command, "--metadata", str(file)]) for _ in range(turns)))
        shown = " ".join(each for each in command if "/" not in each)
        print(f"{shown:<33} {min(seconds):8.2f} {min(cpu):9.2f} {max(memory) / 1024:6.0f} MB")


def _process(arguments: list[str]) -> tuple[float, float, int]:
    """Seconds, CPU seconds, and the peak resident set in KB."""
    began = time.perf_counter()
    program = [sys.executable, "-m", "tfx_ranking.pipelines.cli", *arguments]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {process.returncode}")
    return time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss


def _walks(file: pathlib.Path, day: int, turns: int) -> None:
    store = metadata_store.MetadataStore(_connection(file))
    version = str(FIRST + day * DAY)
    pushes = store.get_artifacts_by_type("PushedModel")
    pushed = next(each.id for each in pushes if each.custom_properties["pushed_version"].string_value == version)
    examples = store.get_artifacts_by_type("Examples")
    start = day // FRESH * FRESH
    first = next(
        each.id for each in examples if each.properties["span"].int_value == start and "span" in each.properties
    )
    for title, artifact, down, ours in (
        (f"lineage of a pushed model, day {day - start + 1} of its chain", pushed, False, _upstream),
        ("impact of the examples of the chain's first day", first, True, _impact),
    ):
        walks: dict[str, Callable[[pathlib.Path, int, bool], Nodes]] = {"tfx-ranking": ours, "a call a node": _naive}
        with contextlib.suppress(errors.UnimplementedError):  # TFX 1.21
            _subgraph(file, artifact, down)
            walks["get_lineage_subgraph"] = _subgraph
        seconds: dict[str, list[float]] = {name: [] for name in walks}
        answers: dict[str, Nodes] = {}
        for _ in range(turns):
            for name, walk in walks.items():
                began = time.perf_counter()
                answers[name] = walk(file, artifact, down)
                seconds[name].append(time.perf_counter() - began)
        executions, artifacts = answers["tfx-ranking"]
        print(f"\n{title}: {len(executions):,} executions, {len(artifacts):,} artifacts")
        for name, times in seconds.items():
            same = "" if answers[name] == answers["tfx-ranking"] else ", DIFFERENT ANSWER"
            ratio = min(times) / min(seconds["tfx-ranking"])
            print(f"{name:<33} {min(times):8.3f} s {ratio:6.1f}x{same}")


def _upstream(file: pathlib.Path, artifact: int, down: bool) -> Nodes:
    lineage = origin.upstream(lineage_store.connect(str(file)), f"artifact:{artifact}")
    return frozenset(each.id for each in lineage.executions), frozenset(lineage.artifacts)


def _impact(file: pathlib.Path, artifact: int, down: bool) -> Nodes:
    store = lineage_store.connect(str(file))
    executions, _ = origin.walk_down(store, store.artifacts([artifact]).values())
    linked = {link.artifact for each in executions.values() for link in (*each.inputs, *each.outputs)}
    return frozenset(executions), frozenset(linked)  # without copies of models that no step used


def _naive(file: pathlib.Path, artifact: int, down: bool) -> Nodes:
    """Walks from node to node, and fetches the contexts of each execution, which a lineage shows too."""
    store = metadata_store.MetadataStore(_connection(file))
    executions: dict[int, Any] = {}
    artifacts = {artifact: store.get_artifacts_by_id([artifact])[0]}
    ahead, seen = [artifact], {artifact}
    while ahead:
        for event in store.get_events_by_artifact_ids([ahead.pop()]):
            takes = event.type in INPUTS
            compared = takes and _name(event) in origin.COMPARISON_INPUTS
            if takes != down or compared or event.execution_id in executions:
                continue
            (execution,) = store.get_executions_by_id([event.execution_id])
            executions[execution.id] = execution, store.get_contexts_by_execution(execution.id)
            for link in store.get_events_by_execution_ids([execution.id]):
                if link.artifact_id not in artifacts:
                    (artifacts[link.artifact_id],) = store.get_artifacts_by_id([link.artifact_id])
                leads_on = (link.type in INPUTS) != down and _name(link) not in origin.COMPARISON_INPUTS
                if leads_on and link.artifact_id not in seen:
                    seen.add(link.artifact_id)
                    ahead.append(link.artifact_id)
    return frozenset(executions), frozenset(artifacts)


def _subgraph(file: pathlib.Path, artifact: int, down: bool) -> Nodes:
    """ML Metadata's own walk.  It follows baselines too, which are removed from its answer here, and it leaves out the
    other outputs of the steps, which are added."""
    store = metadata_store.MetadataStore(_connection(file))
    options = mlmd.LineageSubgraphQueryOptions(max_num_hops=100)
    options.starting_artifacts.filter_query = f"id = {artifact}"
    kind = mlmd.LineageSubgraphQueryOptions
    options.direction = kind.DOWNSTREAM if down else kind.UPSTREAM
    graph = store.get_lineage_subgraph(options)
    by_artifact: dict[int, list[Any]] = {}
    for event in graph.events:
        by_artifact.setdefault(event.artifact_id, []).append(event)
    by_execution: dict[int, list[Any]] = {}
    for event in store.get_events_by_execution_ids([each.id for each in graph.executions]):
        by_execution.setdefault(event.execution_id, []).append(event)
    executions, artifacts, ahead, seen = set(), {artifact}, [artifact], {artifact}
    while ahead:
        for event in by_artifact.get(ahead.pop(), ()):
            takes = event.type in INPUTS
            compared = takes and _name(event) in origin.COMPARISON_INPUTS
            if takes != down or compared or event.execution_id in executions:
                continue
            executions.add(event.execution_id)
            for link in by_execution[event.execution_id]:
                artifacts.add(link.artifact_id)
                leads_on = (link.type in INPUTS) != down and _name(link) not in origin.COMPARISON_INPUTS
                if leads_on and link.artifact_id not in seen:
                    seen.add(link.artifact_id)
                    ahead.append(link.artifact_id)
    store.get_artifacts_by_id(artifacts - {each.id for each in graph.artifacts})
    return frozenset(executions), frozenset(artifacts)


def _name(event: Any) -> str:
    return next((step.key for step in event.path.steps if step.key), "")


def _connection(file: pathlib.Path) -> Any:
    connection = mlmd.ConnectionConfig()
    connection.sqlite.filename_uri = str(file)
    connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READONLY
    return connection


class Maker:
    """Writes runs into one sqlite file, one transaction per run."""

    def __init__(self, folder: pathlib.Path, runs: int) -> None:
        self.folder = folder
        self.last = max(day for day in range(runs) if day % 4 != 3)  # the last day with a push
        self.served = self._serve(self.last)
        connection = mlmd.ConnectionConfig()
        connection.sqlite.filename_uri = str(folder / "metadata.sqlite")
        connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        self.store = metadata_store.MetadataStore(connection)
        self.types: dict[tuple[str, str], int] = {}
        self.pipeline = self._context("pipeline", PIPELINE)
        self.nodes = {node: self._context("node", f"{PIPELINE}.{node}") for node in NODES}
        self.live = ""  # the digest of the live model
        self.trained: Any = None  # the model of the day before
        self.made = 0

    def run(self, day: int) -> None:
        """Writes one run, from the examples of a span to a push."""
        steps: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = []
        digest = self.served if day == self.last else f"{day + 1:064x}"
        value, version = 0.5 + day * 1e-5, str(FIRST + day * DAY)
        made = {
            "live": self._artifact("Model", "LiveModel", live=int(bool(self.live)), digest=self.live, summary="live"),
            "examples": self._artifact("Examples", "RankingExampleGen", span=day, summary="6,000 lists"),
            "statistics": self._artifact("ExampleStatistics", "StatisticsGen", span=day),
            "schema": self._artifact("Schema", "RankingSchemaGen", summary="17 columns"),
            "graph": self._artifact("TransformGraph", "Transform"),
            "transformed": self._artifact("Examples", "Transform"),
            "trained": self._artifact("Model", "RankingTrainer", summary=f"ndcg@10 {value:.4f}"),
            "exported": self._artifact("Model", "SignatureExporter", digest=digest, summary="9 signatures"),
            "blessing": self._artifact("ModelBlessing", "RankingEvaluator", blessed=int(day % 4 != 3)),
            "evaluation": self._artifact(
                "ModelEvaluation", "RankingEvaluator", **{"ndcg@10": value, "mrr": value}, summary="ndcg@10 0.5 (live)"
            ),
        }
        pushed = {"pushed": 0, "reason": "not blessed"}
        if day % 4 != 3:
            self.live = digest
            pushed = {"pushed": 1, "unchanged": 0, "digest": digest, "pushed_version": version}
            pushed["pushed_destination"] = str(self.folder / "serving" / version)
        made["pushed"] = self._artifact("PushedModel", "RankingPusher", **pushed)
        config = json.dumps({"name": PIPELINE, "model": {"hidden": [64, 32]}, "training": {"epochs": 6}})
        files = {"all": [{"path": f"/logs/{day:04}.csv", "size": 2_000_000, "digest": f"{day:032x}"}]}
        source = json.dumps({"files": json.dumps(files), "span": str(day), "version": ""})
        takes: dict[str, tuple[str, ...]] = {
            "StatisticsGen": ("examples",),
            "RankingSchemaGen": ("statistics",),
            "Transform": ("examples", "schema"),
            "RankingTrainer": ("transformed", "graph"),
            "SignatureExporter": ("trained", "examples", "schema", "graph", "transformed"),
            "RankingEvaluator": ("examples", "exported", "live"),
            "RankingPusher": ("exported", "blessing"),
        }
        gives = {
            "LiveModel": ("live",),
            "RankingExampleGen": ("examples",),
            "StatisticsGen": ("statistics",),
            "RankingSchemaGen": ("schema",),
            "Transform": ("graph", "transformed"),
            "RankingTrainer": ("trained",),
            "SignatureExporter": ("exported",),
            "RankingEvaluator": ("blessing", "evaluation"),
            "RankingPusher": ("pushed",),
        }
        calls = {"exported": "model", "live": "baseline_model", "blessing": "model_blessing"}
        for node in NODES:
            inputs = {calls.get(name, name): made[name] for name in takes.get(node, ())}
            if node == "RankingTrainer" and day % FRESH:
                inputs["base_model"] = self.trained
            properties = {"config": config, **({"source": source} if node == "RankingExampleGen" else {})}
            steps.append((node, inputs, {name: made[name] for name in gives[node]}, properties))
        more = ARTIFACTS - len(made)  # reports, checkpoints, caches: the other artifacts of a run
        for i in range(more):
            steps[i % len(steps)][2][f"report{i}"] = self._artifact("Report", NODES[i % len(steps)])
        self._put(f"run-{day:04}", steps)
        self.trained = made["trained"]

    def _serve(self, day: int) -> str:
        """Writes the directory of the last push, as far as the questions read it; returns its digest."""
        directory = self.folder / "serving" / str(FIRST + day * DAY)
        (directory / "variables").mkdir(parents=True)
        for name in ("saved_model.pb", "variables/variables.index"):
            (directory / name).write_text("served")
        return model_files.digest(directory)

    def _put(self, run: str, steps: list[Any]) -> None:
        contexts = [self.pipeline, mlmd.Context(type_id=self._type("Context", "pipeline_run"), name=run)]
        (contexts[1].id,) = self.store.put_contexts([contexts[1]])
        for node, inputs, outputs, properties in steps:
            execution = mlmd.Execution(type_id=self._type("Execution", f"tfx_ranking.components.{node}"))
            execution.last_known_state = mlmd.Execution.COMPLETE
            for name, value in properties.items():
                execution.custom_properties[name].string_value = value
            events = [
                (artifact, mlmd.Event(type=kind, path=mlmd.Event.Path(steps=[mlmd.Event.Path.Step(key=name)])))
                for kind, side in ((mlmd.Event.INPUT, inputs), (mlmd.Event.OUTPUT, outputs))
                for name, artifact in side.items()
            ]
            _, ids, _ = self.store.put_execution(execution, events, [*contexts, self.nodes[node]])
            for (artifact, _), i in zip(events, ids):
                artifact.id = i

    def _artifact(self, kind: str, node: str, **properties: Any) -> Any:
        self.made += 1
        uri = str(self.folder / "artifacts" / PIPELINE / node / str(self.made))
        artifact = mlmd.Artifact(type_id=self._type("Artifact", kind), uri=uri, state=mlmd.Artifact.LIVE)
        for name, value in properties.items():
            fields = artifact.properties if (kind, name) == ("Examples", "span") else artifact.custom_properties
            field = {str: "string_value", int: "int_value", float: "double_value"}[type(value)]
            setattr(fields[name], field, value)
        return artifact

    def _type(self, of: str, name: str) -> int:
        if (of, name) not in self.types:
            made = getattr(mlmd, f"{of}Type")(name=name)
            if name == "Examples":
                made.properties["span"] = mlmd.INT
            self.types[of, name] = getattr(self.store, f"put_{of.lower()}_type")(made)
        return self.types[of, name]

    def _context(self, kind: str, name: str) -> Any:
        context = mlmd.Context(type_id=self._type("Context", kind), name=name)
        (context.id,) = self.store.put_contexts([context])
        return context


if __name__ == "__main__":
    main()
