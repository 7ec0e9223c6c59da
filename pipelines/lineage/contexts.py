"""Which pipeline, run and node executions belong to.

Enters: executions of ML Metadata.  Leaves: their places.  The one idea: a run's executions are asked for at once, since
the contexts of an execution have no batched form and cost a search through all of them.
"""

import bisect
import collections
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

_FEW = 50  # runs whose pipelines are asked for one by one


class Place(NamedTuple):
    """Where an execution was made; "" for what is not known, as of a component that ran alone."""

    pipeline: str = ""
    run: str = ""
    node: str = ""


class Places:
    """Remembers what it was told of a store."""

    def __init__(self, store: Any) -> None:
        """store: ML Metadata's, or what asks it."""
        self._store = store
        self._runs: dict[int, str] = {}  # by execution
        self._pipelines: dict[str, str] = {}  # by run
        self._asked: dict[int, Mapping[str, str]] = {}

    def of(self, executions: Iterable[Any]) -> dict[int, Place]:
        """The places of some executions, by their ids."""
        return {each.id: self._place(each) for each in executions}

    def pipelines(self, firsts: Collection[int]) -> dict[int, str]:
        """The pipelines of some executions, of which a run gives one."""
        if len(self._names) < 2:
            return dict.fromkeys(firsts, next(iter(self._names.values()), ""))
        if len(firsts) <= _FEW:
            return {each: self._pipeline(self._contexts(each)) for each in firsts}
        found = dict.fromkeys(firsts, "")
        for context, name in self._names.items():
            found |= {each.id: name for each in self._store.get_executions_by_context(context) if each.id in found}
        return found

    def node(self, execution: Any, pipeline: str, in_a_run: bool = True) -> str:
        """The node that an execution of a pipeline is of."""
        name = type_name(execution)
        if in_a_run and name in self._plain.get(pipeline, ()):
            return name
        return self._contexts(execution.id).get("node", "")[len(pipeline) + 1 :]

    def _place(self, execution: Any) -> Place:
        if execution.id not in self._runs:
            self._find_run(execution)
        run = self._runs[execution.id]
        pipeline = self._pipeline_of(run, execution.id)
        return Place(pipeline, run, self.node(execution, pipeline, in_a_run=bool(run)))

    def _pipeline_of(self, run: str, execution: int) -> str:
        if not run:
            return self._pipeline(self._contexts(execution))
        if run not in self._pipelines:
            only = next(iter(self._names.values())) if len(self._names) == 1 else ""
            self._pipelines[run] = only or self._pipeline(self._contexts(execution))
        return self._pipelines[run]

    def _find_run(self, execution: Any) -> None:
        """Executions are made after their run and mostly before the next one: that is tried first."""
        begun, contexts = self._by_time
        at = bisect.bisect_right(begun, execution.create_time_since_epoch)
        if at and self._has(contexts[at - 1], execution.id):
            return
        named = self._contexts(execution.id).get("pipeline_run", "")
        its = [each for each in contexts if named and each.name == named]
        if not (its and self._has(its[0], execution.id)):
            self._runs[execution.id] = named

    def _has(self, run: Any, execution: int) -> bool:
        members = [each.id for each in self._store.get_executions_by_context(run.id)]
        self._runs.update(dict.fromkeys(members, run.name))
        return execution in members

    def _contexts(self, execution: int) -> Mapping[str, str]:
        if execution not in self._asked:
            held = self._store.get_contexts_by_execution(execution)
            self._asked[execution] = {each.type: each.name for each in held}
        return self._asked[execution]

    def _pipeline(self, contexts: Mapping[str, str]) -> str:
        return _of_node(contexts.get("node", ""), self._names.values()) or contexts.get("pipeline", "")

    @functools.cached_property
    def _by_time(self) -> tuple[Sequence[int], Sequence[Any]]:
        runs = self._store.get_contexts_by_type("pipeline_run")
        runs = sorted(runs, key=lambda each: (each.create_time_since_epoch, each.id))
        return [each.create_time_since_epoch for each in runs], runs

    @functools.cached_property
    def _names(self) -> dict[int, str]:
        return {each.id: each.name for each in self._store.get_contexts_by_type("pipeline")}

    @functools.cached_property
    def _plain(self) -> Mapping[str, Collection[str]]:
        """By pipeline the nodes that are called as their types, of the pipelines where all are."""
        types = {each.name.rsplit(".", 1)[-1] for each in self._store.get_execution_types()}
        nodes: dict[str, set[str]] = collections.defaultdict(set)
        for context in self._store.get_contexts_by_type("node"):
            pipeline = _of_node(context.name, self._names.values())
            nodes[pipeline].add(context.name[len(pipeline) + 1 :])
        return {pipeline: names for pipeline, names in nodes.items() if names <= types}


def type_name(execution: Any) -> str:
    """The name of an execution's component."""
    return str(execution.type).rsplit(".", 1)[-1]


def _of_node(node: str, pipelines: Iterable[str]) -> str:
    """The pipeline of a node, `<pipeline>.<node>`; both may have dots."""
    return max((name for name in pipelines if node.startswith(f"{name}.")), key=len, default="")
