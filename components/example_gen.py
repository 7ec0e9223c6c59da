"""RankingExampleGen: converts query logs to list examples, in the splits train, validation and test.

Input: LETOR, CSV, Parquet, ELWC, SequenceExample, flat or list examples, as the config's `data` section describes them.
Output: an Examples artifact with one `tf.train.Example` per list, which every stock TFX component can read, and
`quarantine.jsonl` beside the splits.  No record is lost silently: at the end of every run the component checks that
records in = items out + quarantined + capped + dropped.
"""

import dataclasses
import json
from typing import Any, Dict

import apache_beam as beam
from tfx.components.example_gen import utils as tfx_names
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.proto import example_gen_pb2
from tfx.types.standard_artifacts import Examples

from tfx_ranking.components.config import RankingConfig, from_selection
from tfx_ranking.components.config.data_section import Data
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.ingestion import accounts, shuffle, sources, workers
from tfx_ranking.components.ingestion.plan import make_plan
from tfx_ranking.components.push.versions import ServingBase

READS = (
    *(
        f"data.{key}"
        for key in Data.__dataclass_fields__
        if key not in ("on_anomaly", "schema")  # other components read these
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
    """Converts the files in `source` to list examples.

    source: what `resolve` returns; the component calls `resolve` itself if you leave it out.
    span: without a source, the span to read instead of `data.span`; "" for the newest.
    """
    ranking = from_selection(config)
    inputs = json.loads(source or resolve(ranking.data, ranking.push.base if ranking.push else None, span))
    properties = ingest(ranking, inputs, examples.uri, beam_pipeline)
    _set_properties(examples, inputs, properties)


def resolve(data: Data, base: str | None = None, span: str | None = None) -> str:
    """The input files as they are now, as JSON: the component's `source`.

    TFX reuses cached examples as long as the source is the same.

    base: the push destination, for `data.window.since: live`.  span: replaces `data.span`; "" for the newest.
    Raises ConfigError for a span that is not a number.
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
    """Reads the files of a source, writes the splits in `folder`, and returns the artifact's properties.

    Raises DataError when too many records are bad, when a split has no list, or when the rows of a group of an input
    with `data.order: grouped` are not together.
    """
    plan = make_plan(config, source, folder)
    with beam_pipeline or beam.Pipeline() as pipeline:
        files = pipeline | "Files" >> beam.Create(plan.files) | beam.Reshuffle()
        if plan.streamed:
            files | "Ingest" >> beam.Map(lambda file: workers.ingest_file(plan, file))
        else:
            buckets = files | "Scatter" >> beam.FlatMap(lambda file: shuffle.scatter(plan, file)) | beam.GroupByKey()
            if plan.time is None:
                buckets | "Write" >> beam.MapTuple(lambda bucket, parts: shuffle.write_bucket(plan, bucket, parts))
            else:
                encoded = buckets | "Encode" >> beam.MapTuple(lambda b, parts: shuffle.encode_bucket(plan, b, parts))
                times = beam.pvalue.AsList(encoded | "Times" >> beam.Map(shuffle.times_of))
                encoded | "WriteByTime" >> beam.Map(lambda each, known: shuffle.write_by_time(plan, each, known), times)
    return accounts.finish(plan, source)


def _set_properties(examples: Examples, source: Dict[str, Any], properties: Dict[str, Any]) -> None:
    """Sets the artifact's properties, those of stock ExampleGen among them."""
    properties = {
        **properties,
        tfx_names.PAYLOAD_FORMAT_PROPERTY_NAME: example_gen_pb2.PayloadFormat.Name(example_gen_pb2.FORMAT_TF_EXAMPLE),
        tfx_names.FILE_FORMAT_PROPERTY_NAME: "tfrecords_gzip",
    }
    examples.split_names = json.dumps(properties.pop("split_names"))
    examples.span = source["span"]
    if source["version"] is not None:
        examples.version = source["version"]
    for name, value in properties.items():
        set_property = (
            examples.set_int_custom_property if isinstance(value, int) else examples.set_string_custom_property
        )
        set_property(name, value)
