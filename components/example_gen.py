"""RankingExampleGen: query logs to list examples, one `tf.train.Example` a list, in the splits train, validation, test.

Enters: LETOR, CSV, Parquet, ELWC, SequenceExample, flat or list examples, as `data` in the config says.  Leaves: an
Examples artifact that every stock TFX component reads, with `quarantine.jsonl` beside the splits.  The one idea: no
record is lost silently: records in = items out + quarantined + capped + dropped, checked at the end of every run.
"""

import dataclasses
import json
from typing import Any, Dict

import apache_beam as beam
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples

from tfx_ranking.components.config import RankingConfig, from_selection
from tfx_ranking.components.config.data_section import Data
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.ingestion import accounts, shuffle, sources, workers
from tfx_ranking.components.push.versions import ServingBase

READS = (
    *(
        f"data.{key}"
        for key in Data.__dataclass_fields__
        if key not in ("on_anomaly", "schema")  # what the trainer and the schema read
    ),
    *(f"{level}.*.{key}" for level in ("context", "items") for key in ("dtype", "shape", "default", "tokens.present")),
    "evaluation.relevant_from",
)


@component(use_beam=True)
def RankingExampleGen(
    examples: OutputArtifact[Examples],
    config: Parameter[str],
    source: Parameter[str] = None,  # type: ignore[assignment]
    span: Parameter[str] = None,  # type: ignore[assignment]
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
):
    """List examples from the files in `source` (a value of `resolve`; called here if left out).

    span: without a source, the one to take in place of `data.span`; "" for the newest.
    """
    ranking = from_selection(config)
    inputs = json.loads(source or resolve(ranking.data, ranking.push.base if ranking.push else None, span))
    properties = ingest(ranking, inputs, examples.uri, beam_pipeline)
    examples.split_names = json.dumps(properties.pop("split_names"))
    examples.span = inputs["span"]
    if inputs["version"] is not None:
        examples.version = inputs["version"]
    for name, value in properties.items():
        set_property = (
            examples.set_int_custom_property if isinstance(value, int) else examples.set_string_custom_property
        )
        set_property(name, value)


def resolve(data: Data, base: str | None = None, span: str | None = None) -> str:
    """What `sources.resolve` finds now, as the component's `source`: it decides whether the cached examples still hold.

    base: the push destination, for a window since the live model.  span: in place of `data.span`, "" for the newest.
    Raises ConfigError for a span that is no number.
    """
    if span is not None:
        if span and not span.isdecimal():
            raise ConfigError(f"span: expected a number, or nothing for the newest; got {span!r}.")
        data = dataclasses.replace(data, span=int(span) if span else None)
    live_spans = ServingBase(base).live_spans if base else None
    return json.dumps(sources.resolve(data, live_spans), ensure_ascii=False)


def ingest(
    config: RankingConfig, source: Dict[str, Any], folder: str, beam_pipeline: beam.Pipeline | None = None
) -> Dict[str, Any]:
    """Reads the source, writes the splits below `folder`, returns the artifact's properties.

    Raises DataError when too much of the input is bad, a split ends up without a list, or a grouped input is not.
    """
    task = workers.plan(config, source, folder)
    with beam_pipeline or beam.Pipeline() as pipeline:
        files = pipeline | "Files" >> beam.Create(task.units) | beam.Reshuffle()
        if task.streamed:
            files | "Ingest" >> beam.Map(lambda unit: workers.ingest_file(task, unit))
        else:
            buckets = files | "Scatter" >> beam.FlatMap(lambda unit: shuffle.scatter(task, unit)) | beam.GroupByKey()
            if task.time is None:
                buckets | "Write" >> beam.MapTuple(lambda bucket, parts: shuffle.write_bucket(task, bucket, parts))
            else:
                gathered = buckets | "Gather" >> beam.MapTuple(lambda b, parts: shuffle.gather(task, b, parts))
                times = beam.pvalue.AsList(gathered | "Times" >> beam.Map(shuffle.times_of))
                gathered | "Settle" >> beam.Map(lambda each, known: shuffle.settle(task, each, known), times)
    return accounts.finish(task, source)
