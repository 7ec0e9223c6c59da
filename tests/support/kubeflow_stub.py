"""Kubeflow Pipelines' API server in memory: every request is decoded by kfp-server-api's generated models.

A body with an unknown field, a value of another type, or without what the server needs gets 400, as the real one's.
"""

import contextlib
import email
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import kfp_server_api
from kfp import components

PREFIX = "/apis/v2beta1"
INT64 = ("max_concurrency", "interval_second")  # text or number in a request, text in an answer
NEEDED = {
    "V2beta1Run": ("display_name", "experiment_id", "pipeline_version_reference"),
    "V2beta1RecurringRun": (
        "display_name",
        "experiment_id",
        "pipeline_version_reference",
        "trigger",
        "max_concurrency",
    ),
    "V2beta1Experiment": ("display_name",),
    "V2beta1PipelineVersionReference": ("pipeline_id", "pipeline_version_id"),
}


class Server:
    """What is there, by kind; `changes` are the calls that changed something."""

    def __init__(self) -> None:
        self.host = ""
        self.refuse = 0  # a status that every call gets
        self.changes: list[str] = []
        self.there: dict[str, list[dict[str, Any]]] = {
            name: [] for name in ("pipelines", "pipeline_versions", "experiments", "runs", "recurring_runs")
        }

    def find(self, kind: str, query: dict[str, str]) -> list[dict[str, Any]]:
        """The entries that match a list call."""
        matches = self.there[kind]
        if query.get("filter"):
            [predicate] = json.loads(query["filter"])["predicates"]
            assert predicate["operation"] in ("EQUALS", 1)  # by its name, or its number as KFP itself sends it
            value = predicate.get("stringValue") or predicate.get("string_value")
            matches = [each for each in matches if each[predicate["key"]] == value]
        for key in ("experiment_id", "pipeline_id"):
            if query.get(key):
                matches = [each for each in matches if each.get(key) == query[key]]
        if kind in ("pipelines", "experiments"):
            matches = [each for each in matches if each.get("namespace", "") == query.get("namespace", "")]
        return matches

    def add(self, kind: str, id_name: str, **fields: Any) -> dict[str, Any]:
        """A new one, with an id of its own."""
        made = {id_name: f"{kind}-{len(self.changes) + 1}", **fields}
        self.there[kind].append(made)
        self.changes.append(kind)
        return made


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server on a free port of this machine."""
    server = Server()

    class Handler(_Handler):
        state = server

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.host = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def checked(body: Any, model: str, at: str = "") -> None:
    """Raises ValueError for what a generated model does not have."""
    kind = getattr(kfp_server_api, model)
    if hasattr(kind, "allowable_values") and not kind.openapi_types:
        if body not in kind.allowable_values:
            raise ValueError(f"{at or model}: {body!r} is none of {kind.allowable_values}")
        return
    types = {kind.attribute_map[name]: of for name, of in kind.openapi_types.items()}
    unknown = set(body) - set(types)
    missing = [name for name in NEEDED.get(model, ()) if body.get(name) in (None, "", {})]
    if unknown or missing:
        raise ValueError(f"{at or model}: unknown {sorted(unknown)}, missing {missing}")
    for name, value in body.items():
        of, where = types[name], f"{at or model}.{name}"
        if hasattr(kfp_server_api, of):
            checked(value, of, where)
            continue
        if name in INT64 and str(value).isdecimal():
            body[name] = str(value)
            continue
        plain = {"str": str, "bool": bool, "object": object, "datetime": str, "int": (int, str)}
        expected = dict if of.startswith("dict(") else list if of.startswith("list[") else plain[of]
        if not isinstance(value, expected) or (of == "int" and not str(value).isdecimal()):
            raise ValueError(f"{where}: expected {of}, got {value!r}")
    kfp_server_api.ApiClient()._ApiClient__deserialize(body, model)


class _Handler(BaseHTTPRequestHandler):
    state: Server

    def do_GET(self) -> None:
        path, query = self._path_and_query()
        match = re.fullmatch(r"/(?:pipelines/([^/]+)/versions|(\w+))", path)
        if path == "/healthz":
            self._send(200, {"multi_user": False})
        elif match and match[1]:
            self._answer(
                {"pipeline_versions": self.state.find("pipeline_versions", {**query, "pipeline_id": match[1]})}
            )
        elif match and match[2] in ("pipelines", "experiments", "runs"):
            self._answer({match[2]: self.state.find(match[2], query)})
        elif match and match[2] == "recurringruns":
            self._answer({"recurringRuns": self.state.find("recurring_runs", query)})
        else:
            self._refuse(404, f"no {path}")

    def do_POST(self) -> None:
        path, query = self._path_and_query()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            if path.startswith("/pipelines/upload"):
                self._upload(path, query, body)
                return
            kind, model, id_name = {
                "/experiments": ("experiments", "V2beta1Experiment", "experiment_id"),
                "/runs": ("runs", "V2beta1Run", "run_id"),
                "/recurringruns": ("recurring_runs", "V2beta1RecurringRun", "recurring_run_id"),
            }[path]
            fields = json.loads(body)
            checked(fields, model)
            status = {"runs": {"state": "PENDING"}, "recurring_runs": {"status": "ENABLED"}}.get(kind, {})
            self._answer(self.state.add(kind, id_name, **fields, **status))
        except (ValueError, KeyError) as error:
            self._refuse(400, str(error))

    def do_DELETE(self) -> None:
        path, _ = self._path_and_query()
        gone = path.rpartition("/")[2]
        self.state.there["recurring_runs"] = [
            each for each in self.state.there["recurring_runs"] if each["recurring_run_id"] != gone
        ]
        self.state.changes.append(f"delete {gone}")
        self._answer({})

    def _upload(self, path: str, query: dict[str, str], body: bytes) -> None:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        [part] = [each for each in email.message_from_bytes(head + body).walk() if each.get_filename()]
        text = part.get_payload(decode=True).decode()
        pipeline = components.load_component_from_text(text)  # as the server does: it must be a pipeline
        if path.endswith("/upload"):
            where = {"namespace": query["namespace"]} if query.get("namespace") else {}
            if [each for each in self.state.find("pipelines", where) if each["display_name"] == query["name"]]:
                raise ValueError(f"the name {query['name']} already exists")
            made = self.state.add("pipelines", "pipeline_id", display_name=query["name"], **where)
            first = {"pipeline_version_id": f"first of {made['pipeline_id']}", "display_name": query["name"]}
            self.state.there["pipeline_versions"].append({**first, "pipeline_id": made["pipeline_id"]})
        else:
            known = [each["pipeline_id"] for each in self.state.there["pipelines"]]
            if query["pipelineid"] not in known:
                raise ValueError(f"no pipeline {query['pipelineid']}")
            made = self.state.add(
                "pipeline_versions", "pipeline_version_id", display_name=query["name"], pipeline_id=query["pipelineid"]
            )
        assert pipeline.pipeline_spec.root.dag.tasks
        self._answer(made)

    def _path_and_query(self) -> tuple[str, dict[str, str]]:
        parts = urllib.parse.urlsplit(self.path)
        assert parts.path.startswith(PREFIX)
        return parts.path.removeprefix(PREFIX), dict(urllib.parse.parse_qsl(parts.query))

    def _answer(self, body: Any) -> None:
        if self.state.refuse:
            self._refuse(self.state.refuse, "the database is away")
        else:
            self._send(200, body)

    def _refuse(self, status: int, why: str) -> None:
        self._send(status, {"error": why, "code": 3, "message": why})

    def _send(self, status: int, body: Any) -> None:
        sent = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: Any) -> None:
        pass
