"""Finds the pipeline, the run and the node of each execution.

Input: executions of ML Metadata.  Output: their `RunContext`s.  ML Metadata has no batched call for the contexts of an
execution, and each such call searches all contexts; so the executions of a whole run are fetched at once instead.
"""

import bisect
import collections
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

_FEW = 50  # up to so many runs, the pipeline of each is fetched by itself


class RunContext(NamedTuple):
    """The pipeline, run and node of an execution; "" for what is unknown, as for a component that ran alone."""

    pipeline: str = ""
    run: str = ""
    node: str = ""


class RunContexts:
    """Finds the contexts of a store's executions, and caches what it has read."""

    def __init__(self, store: Any) -> None:
        """store: ML Metadata's store."""
        self._store = store
        self._runs: dict[int, str] = {}  # by execution
        self._pipelines: dict[str, str] = {}  # by run
        self._contexts: dict[int, Mapping[str, str]] = {}  # by execution: type to name

    def of(self, executions: Iterable[Any]) -> dict[int, RunContext]:
        """The context of each execution, by its id."""
        return {each.id: self._context(each) for each in executions}

    def pipelines(self, executions: Collection[int]) -> dict[int, str]:
        """The pipeline of each execution, by its id; pass one execution per run."""
        if len(self._names) < 2:
            return dict.fromkeys(executions, next(iter(self._names.values()), ""))
        if len(executions) <= _FEW:
            return {each: self._pipeline(self._contexts_of(each)) for each in executions}
        pipelines = dict.fromkeys(executions, "")
        for context, name in self._names.items():
            members = self._store.get_executions_by_context(context)
            pipelines |= {each.id: name for each in members if each.id in pipelines}
        return pipelines

    def node(self, execution: Any, pipeline: str, in_a_run: bool = True) -> str:
        """The node of a pipeline's execution."""
        name = type_name(execution)
        if in_a_run and name in self._default_names.get(pipeline, ()):
            return name
        return self._contexts_of(execution.id).get("node", "")[len(pipeline) + 1 :]

    def _context(self, execution: Any) -> RunContext:
        if execution.id not in self._runs:
            self._find_run(execution)
        run = self._runs[execution.id]
        pipeline = self._pipeline_of(run, execution.id)
        return RunContext(pipeline, run, self.node(execution, pipeline, in_a_run=bool(run)))

    def _pipeline_of(self, run: str, execution: int) -> str:
        if not run:
            return self._pipeline(self._contexts_of(execution))
        if run not in self._pipelines:
            only = next(iter(self._names.values())) if len(self._names) == 1 else ""
            self._pipelines[run] = only or self._pipeline(self._contexts_of(execution))
        return self._pipelines[run]

    def _find_run(self, execution: Any) -> None:
        """Tries the last run that started before the execution first; only parallel runs need the second way."""
        started, contexts = self._by_time
        at = bisect.bisect_right(started, execution.create_time_since_epoch)
        if at and self._contains(contexts[at - 1], execution.id):
            return
        name = self._contexts_of(execution.id).get("pipeline_run", "")
        runs = [each for each in contexts if name and each.name == name]
        if not (runs and self._contains(runs[0], execution.id)):
            self._runs[execution.id] = name

    def _contains(self, run: Any, execution: int) -> bool:
        members = [each.id for each in self._store.get_executions_by_context(run.id)]
        self._runs.update(dict.fromkeys(members, run.name))
        return execution in members

    def _contexts_of(self, execution: int) -> Mapping[str, str]:
        if execution not in self._contexts:
            contexts = self._store.get_contexts_by_execution(execution)
            self._contexts[execution] = {each.type: each.name for each in contexts}
        return self._contexts[execution]

    def _pipeline(self, contexts: Mapping[str, str]) -> str:
        return _pipeline_of_node(contexts.get("node", ""), self._names.values()) or contexts.get("pipeline", "")

    @functools.cached_property
    def _by_time(self) -> tuple[Sequence[int], Sequence[Any]]:
        runs = self._store.get_contexts_by_type("pipeline_run")
        runs = sorted(runs, key=lambda each: (each.create_time_since_epoch, each.id))
        return [each.create_time_since_epoch for each in runs], runs

    @functools.cached_property
    def _names(self) -> dict[int, str]:
        return {each.id: each.name for each in self._store.get_contexts_by_type("pipeline")}

    @functools.cached_property
    def _default_names(self) -> Mapping[str, Collection[str]]:
        """The nodes of each pipeline in which every node is named after its component."""
        types = {each.name.rsplit(".", 1)[-1] for each in self._store.get_execution_types()}
        nodes: dict[str, set[str]] = collections.defaultdict(set)
        for context in self._store.get_contexts_by_type("node"):
            pipeline = _pipeline_of_node(context.name, self._names.values())
            nodes[pipeline].add(context.name[len(pipeline) + 1 :])
        return {pipeline: names for pipeline, names in nodes.items() if names <= types}


def type_name(execution: Any) -> str:
    """The name of an execution's component."""
    return str(execution.type).rsplit(".", 1)[-1]


def _pipeline_of_node(node: str, pipelines: Iterable[str]) -> str:
    """The pipeline in `<pipeline>.<node>`; both parts may contain dots."""
    return max((name for name in pipelines if node.startswith(f"{name}.")), key=len, default="")
