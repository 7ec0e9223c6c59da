"""Lineages, models and pushes as plain values, and a small store, for the tests of the views."""

import dataclasses
import datetime
import json

from lineage_stores import StoreMaker

from tfx_ranking.pipelines.lineage.values import Artifact, Execution, Lineage, Link, LiveVersion, ModelRecord, PushEvent

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.timezone.utc)
STEPS = (  # node, inputs, outputs
    ("LiveModel", [], ["live"]),
    ("RankingExampleGen", [], ["examples"]),
    ("StatisticsGen", ["examples"], ["statistics"]),
    ("RankingSchemaGen", ["statistics"], ["schema"]),
    ("ExampleValidator", ["statistics", "schema"], ["anomalies"]),
    ("Transform", ["examples", "schema"], ["graph", "transformed", "cache"]),
    ("RankingTrainer", ["graph", "transformed", "anomalies", "live"], ["trained", "model_run"]),
    ("SignatureExporter", ["trained", "graph", "schema", "examples"], ["model"]),
    ("RankingEvaluator", ["examples", "model", "live"], ["blessing", "evaluation"]),
    ("RankingPusher", ["model", "blessing"], ["pushed_model"]),
)
TYPES = {"live": "Model", "trained": "Model", "model": "Model", "pushed_model": "PushedModel", "examples": "Examples"}


def pipeline_runs(count, extra=0):
    """The lineage of the last of `count` runs; each run starts from the model before and makes `extra` more tables."""
    executions, artifacts, before = [], {}, ""
    for i in range(count):
        named = {}
        for node, taken, made_names in STEPS:
            names = made_names + [f"table_{k}" for k in range(extra)] * (node == "Transform")
            outputs = []
            for name in names:
                made = Artifact(len(artifacts) + 1, TYPES.get(name, name.title()), f"/{i}/{name}", NOW, {})
                if name in ("model", "pushed_model"):
                    made = dataclasses.replace(made, properties={"digest": f"{i:064x}"})
                elif name == "live":
                    made = dataclasses.replace(made, properties={"digest": before, "live": int(bool(before))})
                artifacts[made.id] = named[name] = made
                outputs.append(Link(name, made.id))
            inputs = tuple(Link(name, named[name].id) for name in taken)
            state = "failed" if (i, node) == (1, "RankingPusher") else "done"
            executions.append(step(len(executions) + 1, node, inputs, outputs, run=f"run-{i}", state=state))
        before = f"{i:064x}"
    subject = [each for each in artifacts.values() if each.digest == before and not each.copied]
    return Lineage("1795275762", False, tuple(subject), tuple(reversed(executions)), artifacts)


def step(number, node, inputs=(), outputs=(), run="one", state="done", pipeline="shop", **properties):
    ended = NOW + datetime.timedelta(seconds=number)
    reason = "no space" * (state == "failed")
    return Execution(
        id=number, node=node, pipeline=pipeline, run=run, state=state, reason=reason, started=NOW, ended=ended,
        properties=properties, inputs=tuple(inputs), outputs=tuple(outputs),
    )  # fmt: skip


def model(digest, value, blessed=True, metric="ndcg@10"):
    return ModelRecord(
        id=1, digest=digest, uri="/m", pipeline="shop", run=f"of {digest}", made=NOW, examples=2,
        spans=(3,), metric=metric if value is not None else "", value=value, blessed=blessed,
    )  # fmt: skip


def push(number, version, kind="push", base="/serving/shop", **fields):
    fields = {"label": "", "rollback_of": "", "restores": "", "reason": "blessed"} | fields
    at = NOW + datetime.timedelta(hours=number)
    return PushEvent(
        id=number, kind=kind, at=at, base=base, version=version, directory=f"{base}/{version}", digest=f"d{version}",
        **fields,
    )  # fmt: skip


HISTORY = [
    (push(1, "1"), model("d1", 0.60)),
    (push(2, "2"), model("d2", 0.64)),
    (push(3, "3"), model("d3", 0.58, blessed=False)),
    (push(4, "4", "rollback", rollback_of="3", restores="2"), model("d2", 0.64)),
    (push(5, "5"), model("d5", None)),
]
LIVE = [LiveVersion("/serving/shop", "4", "d2", True)]


def retrained(root):
    """Makes a store of three nightly runs, each on its own span; the second is not blessed.  Returns its file."""
    maker = StoreMaker(root)
    for i, (value, blessed) in enumerate([(0.60, 1), (0.55, 0), (0.63, 1)], 1):
        properties = {
            "examples": {"span": i, "summary": f"{i},000 lists"},
            "model": {"digest": f"digest-{i}", "summary": "12 signatures"},
            "evaluation": {"summary": f"ndcg@10 {value:.4f}", "metric": "ndcg@10", "ndcg@10": value,
                           "convention ndcg@10": "drop"},
            "blessing": {"blessed": blessed},
            "pushed_model": {"pushed": blessed, "digest": f"digest-{i}", "pushed_version": f"10{i}", "unchanged": 0,
                             "pushed_destination": f"/serving/shop/10{i}", "reason": "blessed"},
        }  # fmt: skip
        files = [{"path": f"/logs/{i}.csv", "size": 2217415, "digest": f"bytes-{i}"}]
        called = {"RankingExampleGen": {"source": json.dumps({"files": {"all": files}, "span": i})}}
        called["RankingTrainer"] = {"config": json.dumps({"name": "shop", "training": {"epochs": 5 + i}})}
        named = {}
        for node, taken, made_names in STEPS[1:]:
            outputs = {}
            for name in made_names:
                kind = {"pushed_model": "PushedModel", "blessing": "ModelBlessing", "evaluation": "ModelEvaluation"}
                of_type = kind.get(name) or TYPES.get(name, name.title())
                outputs[name] = maker.artifact(of_type, f"{node}/{name}/{i}", **properties.get(name, {}))
            inputs = {name: named[name] for name in taken if name in named}
            maker.step(f"night-{i}", node, inputs, outputs, **called.get(node, {}))
            named |= outputs
    return maker.file
