"""A compiled pipeline at a cluster: uploaded, run once, or run again and again.

Enters: what `tfx-ranking compile` wrote, KFP's client.  Leaves: what was done, call by call.  The one idea: a pipeline
is known there by its name and a version by the digest of the file, so doing it again does nothing twice.
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


class Asked(NamedTuple):
    """What a run is to be."""

    experiment: str | None = None  # the pipeline's name when left out
    namespace: str | None = None  # Kubernetes', where Kubeflow is shared
    parameters: Mapping[str, Any] = {}  # in place of the compiled ones


class Done(NamedTuple):
    """One thing that is there now."""

    kind: str  # pipeline, version, experiment, run, recurring run
    name: str
    id: str
    how: str  # "there already", or the call that made it

    def __str__(self) -> str:
        return f"{self.kind:14}{self.name}  {self.how}"


class Compiled(NamedTuple):
    """A compiled pipeline's file."""

    file: pathlib.Path
    name: str
    version: str  # its name, and the digest of its bytes
    root: str | None  # of its artifacts; the server asks for it with each run


def connect(host: str | None) -> Any:
    """KFP's client.  Raises RankingError where it is not installed, or there is no such host."""
    require_kfp()
    import kfp

    with _said_to_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions that are older than what this needs
        try:
            return kfp.Client(host=host)
        except Exception as error:  # kfp raises what urllib3, kubernetes and its own server's client do
            raise RankingError(_no_answer(error, host)) from error


def submit(file: pathlib.Path, client: Any, asked: Asked) -> list[Done]:
    """Uploads a compiled pipeline and starts a run of it, unless the same one is under way.

    client: `connect`'s, or an `Unconnected`.  Raises RankingError for another file, and with the server's words.
    """
    with _calls():
        compiled = read(file)
        done, pipeline, version, experiment = _uploaded(compiled, client, asked)
        name = _run_name(compiled, asked)
        there = client.list_runs(
            experiment_id=experiment, page_size=_PAGE, sort_by="created_at desc", filter=_named(name)
        )
        under_way = [each for each in there.runs or () if each.state in _UNFINISHED]
        if under_way:
            return [*done, Done("run", name, under_way[0].run_id, "under way already")]
        run = client.run_pipeline(
            experiment_id=experiment,
            job_name=name,
            params=dict(asked.parameters),
            pipeline_id=pipeline,
            version_id=version,
            pipeline_root=compiled.root,
        )
        return [*done, Done("run", name, run.run_id, _call(client, "started"))]


def schedule(
    file: pathlib.Path, client: Any, asked: Asked, cron: str | None = None, every: int | None = None
) -> list[Done]:
    """Uploads a compiled pipeline and has it run again and again, one run at a time, missed ones once.

    cron: five fields, as crontab has them.  every: seconds.  A recurring run of the same pipeline that differs in
    version, times or parameters is replaced.
    Raises RankingError as `submit` does.
    """
    with _calls():
        compiled = read(file)
        done, pipeline, version, experiment = _uploaded(compiled, client, asked)
        there = client.list_recurring_runs(experiment_id=experiment, page_size=_PAGE, filter=_named(compiled.name))
        ours = list(there.recurring_runs or ())
        fields = _fields(cron) if cron else None
        same = [each for each in ours if _is(each, version, compiled.root, asked, fields, every)]
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
                params=dict(asked.parameters),
                pipeline_id=pipeline,
                version_id=version,
                pipeline_root=compiled.root,
            )
            kept, how = made.recurring_run_id, _call(client, "made")
        done.append(Done("recurring run", compiled.name, kept, how))
        for each in ours:  # after the new one: a stop in between leaves one too many, which the next call takes away
            if each.recurring_run_id != kept:
                client.delete_recurring_run(each.recurring_run_id)
                done.append(Done("recurring run", compiled.name, each.recurring_run_id, "replaced"))
        return done


def read(file: pathlib.Path) -> Compiled:
    """What a compiled pipeline's file says of itself.  Raises RankingError for any other file."""
    import yaml

    spec: Any = None
    try:
        text = file.read_bytes()
        spec = next(yaml.safe_load_all(text))  # Kubernetes' part may follow
        name = spec["pipelineInfo"]["name"]
    except FileNotFoundError:
        raise RankingError(f"{file}: no such file; {_made_by('ranking.yaml')}.") from None
    except (yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
        if isinstance(spec, dict) and "data" in spec:
            raise RankingError(f"{file}: this is a ranking.yaml, no compiled pipeline; {_made_by(file)}.") from error
        raise RankingError(f"{file}: no compiled pipeline; {_made_by('ranking.yaml')}.") from error
    version = f"{name}-{hashlib.blake2b(text, digest_size=6).hexdigest()}"
    return Compiled(file, name, version, spec.get("defaultPipelineRoot"))


def _made_by(config: str | pathlib.Path) -> str:
    return f"`tfx-ranking compile {config} --image IMAGE --root ROOT -o pipeline.yaml` makes one"


class Unconnected:
    """In the client's place: finds nothing there, makes no call, and tells which it would have made."""

    said = ""

    def list_pipelines(self, **_: Any) -> Any:
        return _Answer(pipelines=[])

    def list_pipeline_versions(self, **_: Any) -> Any:
        return _Answer(pipeline_versions=[])

    def list_runs(self, **_: Any) -> Any:
        return _Answer(runs=[])

    def list_recurring_runs(self, **_: Any) -> Any:
        return _Answer(recurring_runs=[])

    def __getattr__(self, name: str) -> Any:
        def told(**arguments: Any) -> Any:
            given = ", ".join(f"{key}={value!r}" for key, value in arguments.items() if value is not None)
            self.said = f"{name}({given})"
            return _Answer(
                pipeline_id="<pipeline>",
                pipeline_version_id="<version>",
                experiment_id="<experiment>",
                run_id="<run>",
                recurring_run_id="<recurring run>",
            )

        return told


class _Answer:
    def __init__(self, **fields: Any) -> None:
        self.__dict__ |= fields


def _uploaded(compiled: Compiled, client: Any, asked: Asked) -> tuple[list[Done], str, str, str]:
    """What is there now: pipeline, version and experiment, and the ids of the three."""
    path = str(compiled.file)
    # Not `get_pipeline_id`, which looks into no namespace.
    pipelines = client.list_pipelines(page_size=_PAGE, filter=_named(compiled.name), namespace=asked.namespace)
    pipeline, how = next((each.pipeline_id for each in pipelines.pipelines or ()), None), "there already"
    if pipeline is None:
        made = client.upload_pipeline(
            pipeline_package_path=path, pipeline_name=compiled.name, namespace=asked.namespace
        )
        pipeline, how = made.pipeline_id, _call(client, "uploaded")
    done = [Done("pipeline", compiled.name, pipeline, how)]
    there = client.list_pipeline_versions(pipeline_id=pipeline, page_size=_PAGE, filter=_named(compiled.version))
    known = [each.pipeline_version_id for each in there.pipeline_versions or ()]
    how = "there already"
    if not known:
        version = client.upload_pipeline_version(
            pipeline_package_path=path, pipeline_version_name=compiled.version, pipeline_id=pipeline
        )
        known, how = [version.pipeline_version_id], _call(client, "uploaded")
    done.append(Done("version", compiled.version, known[0], how))
    name = asked.experiment or compiled.name
    experiment = client.create_experiment(name=name, namespace=asked.namespace).experiment_id  # or the one there is
    done.append(Done("experiment", name, experiment, _call(client, "there")))
    return done, pipeline, known[0], experiment


def _fields(cron: str) -> str:
    """Kubeflow's fields: seconds before cron's, and no 7 among the weekdays.

    >>> _fields("0 3 * * 5-7")
    '0 0 3 * * fri,sat,sun'
    """
    *others, weekday = cron.split()
    return " ".join(("0", *others, weekdays(weekday)))


def _run_name(compiled: Compiled, asked: Asked) -> str:
    given = " ".join(f"{name}={value}" for name, value in sorted(asked.parameters.items()))
    return f"{compiled.version} {given}".strip()


def _is(recurring: Any, version: str, root: str | None, asked: Asked, cron: str | None, every: int | None) -> bool:
    trigger, reference = recurring.trigger, recurring.pipeline_version_reference
    runtime = recurring.runtime_config
    return bool(
        reference
        and reference.pipeline_version_id == version
        and recurring.status in (None, "ENABLED")
        and (trigger.cron_schedule.cron if trigger.cron_schedule else None) == cron
        and (int(trigger.periodic_schedule.interval_second) if trigger.periodic_schedule else None) == every
        and dict((runtime.parameters if runtime else None) or {}) == dict(asked.parameters)
        and (runtime.pipeline_root if runtime else None) == root
    )


def _named(name: str) -> str:
    """KFP's filter by a name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _call(client: Any, done: str) -> str:
    return client.said if isinstance(client, Unconnected) else done


@contextlib.contextmanager
def _calls() -> Iterator[None]:
    require_kfp()
    import kfp_server_api
    import urllib3

    with _said_to_stderr():
        try:
            yield
        except kfp_server_api.ApiException as error:
            raise RankingError(f"Kubeflow Pipelines answered {error.status}: {_said(error.body)}") from error
        except (urllib3.exceptions.HTTPError, ConnectionError) as error:
            raise RankingError(_no_answer(error)) from error


def _no_answer(error: BaseException, host: str | None = None) -> str:
    """Of urllib3's long text the address and the cause."""
    import urllib3

    why = _reason(error)
    if isinstance(error, urllib3.exceptions.MaxRetryError):
        host, why = host or f"{error.pool.host}:{error.pool.port}", str(error.reason).rpartition(": ")[2]
    return f"no Kubeflow Pipelines answers at {host or 'its address'}; name it with --host. ({why})"


def _said(body: Any) -> str:
    try:
        answered = json.loads(body)
        return str(answered.get("error_message") or answered.get("message") or answered.get("error"))
    except (TypeError, ValueError, AttributeError):
        return str(body or "nothing")


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


@contextlib.contextmanager
def _said_to_stderr() -> Iterator[None]:
    """The client prints links; what this prints is for programs, too."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
