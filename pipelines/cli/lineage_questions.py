"""Lists the questions that the lineage commands ask, and the three renderings of each answer.

Input: a command's parsed arguments.  Output: an answer, as text, JSON or an HTML page.

To add a question:
1. Write the function that asks it in `pipelines/lineage/`, and its renderers in `pipelines/lineage/views/`.
2. Add a row to `QUESTIONS`, under the name of the command.
3. Add the command and its options to `lineage_commands.add`, with the same name.
"""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from tfx_ranking.pipelines.lineage import diff, impact, origin, served
from tfx_ranking.pipelines.lineage.store import connect
from tfx_ranking.pipelines.lineage.views import diff_views, origin_views, served_views

Answer = tuple[Any, ...]


class Question(NamedTuple):
    """One question.  Each renderer gets the members of the answer as its arguments."""

    ask: Callable[[argparse.Namespace], Answer]
    text: Callable[..., str]
    json: Callable[..., Any]  # what `json.dumps` takes
    page: Callable[..., str]  # HTML


def _runs(arguments: argparse.Namespace) -> Answer:
    return (origin.runs(connect(arguments.metadata), arguments.limit or None),)


def _lineage(arguments: argparse.Namespace) -> Answer:
    return ((origin.downstream if arguments.down else origin.upstream)(connect(arguments.metadata), arguments.item),)


def _served(arguments: argparse.Namespace) -> Answer:
    since, until = served.moment(arguments.at)  # first: a wrong time is wrong usage, with or without a store
    return served.served(connect(arguments.metadata), arguments.base, since, until), arguments.base


def _impact(arguments: argparse.Namespace) -> Answer:
    store = connect(arguments.metadata)
    if arguments.span is not None:
        return (impact.of_span(store, arguments.span),)
    if arguments.file is not None:
        return (impact.of_file(store, arguments.file),)
    return (impact.of_run(store, arguments.run),)


def _models(arguments: argparse.Namespace) -> Answer:
    store = connect(arguments.metadata)
    models = served.models(store, arguments.base, arguments.limit)
    return models, served.live(store, {push.base for push, _ in models})


def _diff(arguments: argparse.Namespace) -> Answer:
    return (diff.diff(connect(arguments.metadata), arguments.before, arguments.after),)


QUESTIONS: dict[str, Question] = {
    "runs": Question(_runs, origin_views.runs_text, origin_views.runs_json, origin_views.runs_page),
    "lineage": Question(_lineage, origin_views.lineage_text, origin_views.lineage_json, origin_views.lineage_page),
    "served": Question(
        _served,
        served_views.served_text,
        lambda periods, _: served_views.served_json(periods),
        served_views.served_page,
    ),
    "impact": Question(_impact, served_views.impact_text, served_views.impact_json, served_views.impact_page),
    "models": Question(_models, served_views.models_text, served_views.models_json, served_views.models_page),
    "diff": Question(_diff, diff_views.diff_text, diff_views.diff_json, diff_views.diff_page),
}
