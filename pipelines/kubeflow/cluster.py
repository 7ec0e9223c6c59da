"""Uploads a compiled pipeline to Kubeflow Pipelines, and runs it once or on a schedule.

Input: a file that `tfx-ranking compile` wrote, and KFP's client.  Output: one `Resource` for each thing on the cluster.
The cluster knows a pipeline by its name, and a version by the digest of the file, so a second call creates nothing
twice.
"""

import contextlib
import hashlib
import json
import pathlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tfx_ranking.components.errors import RankingError
from tfx_ranking.pipelines.kubeflow.compiler import require_kfp
from tfx_ranking.pipelines.retraining.schedule_plan import weekdays

_UNFINISHED = ("RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING", "PAUSED", "CANCELING")
_PAGE = 100


class RunOptions(NamedTuple):
    """Where a run belongs, and its parameters."""

    experiment: str | None = None  # None: the pipeline's name
    namespace: str | None = None  # of Kubernetes, if several users share Kubeflow
    parameters: Mapping[str, Any] = {}  # replace the values in the compiled file


class Resource(NamedTuple):
    """One thing on the cluster."""

    kind: str  # pipeline, version, experiment, run, recurring run
    name: str
    id: str
    how: str  # "there already", or what was done; in a dry run the call

    def __str__(self) -> str:
        return f"{self.kind:14}{self.name}  {self.how}"


class CompiledFile(NamedTuple):
    """A compiled pipeline's file."""

    file: pathlib.Path
    name: str
    version: str  # the pipeline's name and the digest of the file's bytes
    root: str | None  # folder of the artifacts; the server needs it with each run


def connect(host: str | None) -> Any:
    """Returns KFP's client.  Raises RankingError if `kfp` is not installed or the host does not answer."""
    require_kfp()
    import kfp

    with _stdout_to_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kfp warns about old versions of its dependencies
        try:
            return kfp.Client(host=host)
        except Exception as error:  # kfp passes on the errors of urllib3, kubernetes and kfp_server_api
            raise RankingError(_no_answer(error, host)) from error


def submit(file: pathlib.Path, client: Any, options: RunOptions) -> list[Resource]:
    """Uploads a compiled pipeline and starts a run of it, unless the same run is in progress.

    client: from `connect`, or a `DryRunClient`.
    Raises RankingError if the file is not a compiled pipeline, or if the server refuses a call.
    """
    with _server_errors():
        compiled = read(file)
        resources, pipeline, version, experiment = _upload(compiled, client, options)
        name = _run_name(compiled, options)
        there = client.list_runs(
            experiment_id=experiment, page_size=_PAGE, sort_by="created_at desc", filter=_named(name)
        )
        under_way = [each for each in there.runs or () if each.state in _UNFINISHED]
        if under_way:
            return [*resources, Resource("run", name, under_way[0].run_id, "under way already")]
        run = client.run_pipeline(
            experiment_id=experiment,
            job_name=name,
            params=dict(options.parameters),
            pipeline_id=pipeline,
            version_id=version,
            pipeline_root=compiled.root,
        )
        return [*resources, Resource("run", name, run.run_id, _call(client, "started"))]


def schedule(
    file: pathlib.Path, client: Any, options: RunOptions, cron: str | None = None, every: int | None = None
) -> list[Resource]:
    """Uploads a compiled pipeline and creates a recurring run of it: one run at a time, one for all missed ones.

    cron: five fields, as in crontab.  every: seconds.
    Replaces a recurring run of the same pipeline that has another version, schedule or other parameters.
    Raises RankingError as `submit` does.
    """
    with _server_errors():
        compiled = read(file)
        resources, pipeline, version, experiment = _upload(compiled, client, options)
        there = client.list_recurring_runs(experiment_id=experiment, page_size=_PAGE, filter=_named(compiled.name))
        ours = list(there.recurring_runs or ())
        fields = _fields(cron) if cron else None
        same = [each for each in ours if _is_same(each, version, compiled.root, options, fields, every)]
        if same:
            kept, how = same[0].recurring_run_id, "there already"
        else:
            made = client.create_recurring_run(
                experiment_id=experiment,
                job_name=compiled.name,
                cron_expression=fields,
                interval_second=every,
                max_concurrency=1,
                no_catchup=True,
                params=dict(options.parameters),
                pipeline_id=pipeline,
                version_id=version,
                pipeline_root=compiled.root,
            )
            kept, how = made.recurring_run_id, _call(client, "made")
        resources.append(Resource("recurring run", compiled.name, kept, how))
        for each in ours:  # after the new one exists: if we stop in between, the next call deletes the old one
            if each.recurring_run_id != kept:
                client.delete_recurring_run(each.recurring_run_id)
                resources.append(Resource("recurring run", compiled.name, each.recurring_run_id, "replaced"))
        return resources


def read(file: pathlib.Path) -> CompiledFile:
    """Reads the name, version and root of a compiled pipeline.  Raises RankingError for any other file."""
    import yaml

    spec: Any = None
    try:
        text = file.read_bytes()
        spec = next(yaml.safe_load_all(text))  # a second document, for Kubernetes, may follow
        name = spec["pipelineInfo"]["name"]
    except FileNotFoundError:
        raise RankingError(f"{file}: no such file; {_how_to_make('ranking.yaml')}.") from None
    except (yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
        if isinstance(spec, dict) and "data" in spec:
            raise RankingError(
                f"{file}: this is a ranking.yaml, not a compiled pipeline; {_how_to_make(file)}."
            ) from error
        raise RankingError(f"{file}: not a compiled pipeline; {_how_to_make('ranking.yaml')}.") from error
    version = f"{name}-{hashlib.blake2b(text, digest_size=6).hexdigest()}"
    return CompiledFile(file, name, version, spec.get("defaultPipelineRoot"))


def _how_to_make(config: str | pathlib.Path) -> str:
    return f"make one with `tfx-ranking compile {config} --image IMAGE --root ROOT -o pipeline.yaml`"


class DryRunClient:
    """Takes the place of KFP's client in a dry run: it calls nothing, and records the call that it would make."""

    last_call = ""

    def list_pipelines(self, **_: Any) -> Any:
        return _DryRunAnswer(pipelines=[])

    def list_pipeline_versions(self, **_: Any) -> Any:
        return _DryRunAnswer(pipeline_versions=[])

    def list_runs(self, **_: Any) -> Any:
        return _DryRunAnswer(runs=[])

    def list_recurring_runs(self, **_: Any) -> Any:
        return _DryRunAnswer(recurring_runs=[])

    def __getattr__(self, name: str) -> Any:
        def record(**arguments: Any) -> Any:
            text = ", ".join(f"{key}={value!r}" for key, value in arguments.items() if value is not None)
            self.last_call = f"{name}({text})"
            return _DryRunAnswer(
                pipeline_id="<pipeline>",
                pipeline_version_id="<version>",
                experiment_id="<experiment>",
                run_id="<run>",
                recurring_run_id="<recurring run>",
            )

        return record


class _DryRunAnswer:
    """An answer of the server, as far as this module reads it."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__ |= fields


def _upload(compiled: CompiledFile, client: Any, options: RunOptions) -> tuple[list[Resource], str, str, str]:
    """Creates what is missing of pipeline, version and experiment.  Returns the three, and their ids."""
    path = str(compiled.file)
    # `get_pipeline_id` would not search in a namespace.
    pipelines = client.list_pipelines(page_size=_PAGE, filter=_named(compiled.name), namespace=options.namespace)
    pipeline, how = next((each.pipeline_id for each in pipelines.pipelines or ()), None), "there already"
    if pipeline is None:
        made = client.upload_pipeline(
            pipeline_package_path=path, pipeline_name=compiled.name, namespace=options.namespace
        )
        pipeline, how = made.pipeline_id, _call(client, "uploaded")
    resources = [Resource("pipeline", compiled.name, pipeline, how)]
    there = client.list_pipeline_versions(pipeline_id=pipeline, page_size=_PAGE, filter=_named(compiled.version))
    known = [each.pipeline_version_id for each in there.pipeline_versions or ()]
    how = "there already"
    if not known:
        version = client.upload_pipeline_version(
            pipeline_package_path=path, pipeline_version_name=compiled.version, pipeline_id=pipeline
        )
        known, how = [version.pipeline_version_id], _call(client, "uploaded")
    resources.append(Resource("version", compiled.version, known[0], how))
    name = options.experiment or compiled.name
    experiment = client.create_experiment(
        name=name, namespace=options.namespace
    ).experiment_id  # or returns the existing one
    resources.append(Resource("experiment", name, experiment, _call(client, "there")))
    return resources, pipeline, known[0], experiment


def _fields(cron: str) -> str:
    """The cron fields as Kubeflow takes them: it wants seconds first, and does not know weekday 7.

    >>> _fields("0 3 * * 5-7")
    '0 0 3 * * fri,sat,sun'
    """
    *others, weekday = cron.split()
    return " ".join(("0", *others, weekdays(weekday)))


def _run_name(compiled: CompiledFile, options: RunOptions) -> str:
    parameters = " ".join(f"{name}={value}" for name, value in sorted(options.parameters.items()))
    return f"{compiled.version} {parameters}".strip()


def _is_same(
    recurring: Any, version: str, root: str | None, options: RunOptions, cron: str | None, every: int | None
) -> bool:
    trigger, reference = recurring.trigger, recurring.pipeline_version_reference
    runtime = recurring.runtime_config
    return bool(
        reference
        and reference.pipeline_version_id == version
        and recurring.status in (None, "ENABLED")
        and (trigger.cron_schedule.cron if trigger.cron_schedule else None) == cron
        and (int(trigger.periodic_schedule.interval_second) if trigger.periodic_schedule else None) == every
        and dict((runtime.parameters if runtime else None) or {}) == dict(options.parameters)
        and (runtime.pipeline_root if runtime else None) == root
    )


def _named(name: str) -> str:
    """A filter for KFP's list calls: only the entries with this name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _call(client: Any, done: str) -> str:
    return client.last_call if isinstance(client, DryRunClient) else done


@contextlib.contextmanager
def _server_errors() -> Iterator[None]:
    """Turns the errors of KFP's client into RankingError."""
    require_kfp()
    import kfp_server_api
    import urllib3

    with _stdout_to_stderr():
        try:
            yield
        except kfp_server_api.ApiException as error:
            raise RankingError(f"Kubeflow Pipelines answered {error.status}: {_message(error.body)}") from error
        except (urllib3.exceptions.HTTPError, ConnectionError) as error:
            raise RankingError(_no_answer(error)) from error


def _no_answer(error: BaseException, host: str | None = None) -> str:
    """An error message with the address and the cause, without the rest of urllib3's long text."""
    import urllib3

    why = _reason(error)
    if isinstance(error, urllib3.exceptions.MaxRetryError):
        host, why = host or f"{error.pool.host}:{error.pool.port}", str(error.reason).rpartition(": ")[2]
    return (
        f"Kubeflow Pipelines does not answer at {host or 'its default address'}; set its address with --host. ({why})"
    )


def _message(body: Any) -> str:
    try:
        answer = json.loads(body)
        return str(answer.get("error_message") or answer.get("message") or answer.get("error"))
    except (TypeError, ValueError, AttributeError):
        return str(body or "nothing")


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Keeps the links that KFP's client prints out of the standard output, which programs read."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
