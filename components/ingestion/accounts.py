"""Finishes an ingestion: merges the workers' reports, checks them, and renames the shards.

Input: a `Plan` whose files the workers have read.  Output: the splits, `quarantine.jsonl` and the artifact's
properties.  No record is lost silently: records in = items out + quarantined + capped + dropped.
"""

import collections
import json
import logging
import os
import pickle
from typing import Any

from tfx_ranking.components import storage
from tfx_ranking.components.choices.formats import FORMATS
from tfx_ranking.components.config.data_section import SPLIT_NAMES
from tfx_ranking.components.errors import DataError
from tfx_ranking.components.ingestion import spans
from tfx_ranking.components.ingestion.grouping import group_order_error
from tfx_ranking.components.ingestion.plan import Plan, Report
from tfx_ranking.components.ingestion.shards import parts_folder, span_of
from tfx_ranking.components.lists.list_examples import SPANS_OF_SHARDS

QUARANTINE = "quarantine.jsonl"


def finish(plan: Plan, source: dict[str, Any]) -> dict[str, Any]:
    """Checks the workers' reports, writes the quarantine, renames the shards, and returns the artifact's properties.

    Raises DataError as `example_gen.ingest` does, and the first error that a worker reported.
    """
    files = storage.artifact_files()
    report = _merged(plan)
    _check_groups(plan, report)
    _write_quarantine(plan, report)
    _check_bad(plan, report)
    _check_splits(plan, report)
    _check_list_lengths(plan, report)
    span_of_shards = {split: _rename_shards(plan, split) for split in plan.split_names}
    if "spans" in source:
        with files.open(os.path.join(plan.folder, SPANS_OF_SHARDS), "w") as opened:
            opened.write(json.dumps(span_of_shards))
    files.rmtree(os.path.join(plan.folder, "parts"))
    return _properties(plan, report, source)


def _merged(plan: Plan) -> Report:
    """The sum of the workers' reports.  Raises the first error among them, and RuntimeError where records are lost."""
    files = storage.artifact_files()
    report = Report()
    for path in sorted(files.glob(os.path.join(parts_folder(plan.folder, "reports"), "*.pickle"))):
        with files.open(path, "rb") as opened:
            report.merge(pickle.loads(opened.read()))
    if report.error:
        raise report.error
    counts = report.counts
    out = sum(counts[f"items/{split}"] for split in plan.split_names)
    lost = counts["quarantined"] + counts["capped"] + counts["dropped"]
    if counts["records_in"] != out + lost:
        raise RuntimeError(
            f"{counts['records_in']} records were read, but {out} items written and {lost} set aside: "
            "RankingExampleGen lost some. This is a defect of tfx-ranking; please report it with the input's format."
        )
    return report


def _check_groups(plan: Plan, report: Report) -> None:
    """Raises an error for a group in two files of a grouped input; warns of a group in the files of two splits."""
    paths = [file.path for file in plan.files]
    owners: dict[bytes, str] = {}
    order = list(SPLIT_NAMES)
    shared: collections.Counter = collections.Counter()
    by_row = not FORMATS[plan.config.data.format].lists
    for origin, groups in sorted(report.groups.items()):
        first: dict[tuple, tuple] = {}
        for group, number, row in sorted(groups, key=lambda each: each[1:]) if by_row else groups:
            list_id = group, plan.files[number].span
            if list_id in first and by_row and plan.streamed:
                earlier = first[list_id]
                raise group_order_error(group, (paths[earlier[0]], earlier[1]), (paths[number], row))
            first[list_id] = (number, row)
        for group, _ in first:
            if owners.setdefault(group, origin) != origin:
                shared[" and ".join(sorted((owners[group], origin), key=order.index))] += 1
    for pair, count in sorted(shared.items()):
        logging.warning(
            "%d group ids are in the files of both %s. Their lists stay separate. If they are the same queries, "
            "remove them from one of the splits: a model must not be tested on queries that it was trained on.",
            count,
            pair,
        )
        report.counts["shared_group_ids"] += count


def _write_quarantine(plan: Plan, report: Report) -> None:
    files = storage.artifact_files()
    report.bad.sort()
    lines = [
        json.dumps(
            {"file": plan.files[number].path, "position": bad.position, "reason": bad.reason, "items": bad.items}
        )
        for number, bad in report.bad
    ]
    with files.open(os.path.join(plan.folder, QUARANTINE), "w") as opened:
        opened.write("".join(line + "\n" for line in lines))


def _check_bad(plan: Plan, report: Report) -> None:
    files = storage.artifact_files()
    records, lost = report.counts["records_in"], report.counts["quarantined"]
    if not records:
        names = ", ".join(file.path for file in plan.files[:3])
        raise DataError(f"data.input: the files have no records ({names}); there is nothing to learn from.")
    allowed = plan.config.data.max_bad_fraction
    if lost / records > allowed:
        # A copy beside the folder, because TFX removes the folder of a failed execution.
        kept = plan.folder.rstrip("/") + "-" + QUARANTINE
        files.copy(os.path.join(plan.folder, QUARANTINE), kept, overwrite=True)
        shown = [f"{plan.files[number].path}:{bad.position}: {bad.reason}" for number, bad in report.bad[:3]]
        first = f"The first {len(shown)}" if len(shown) > 1 else "The first"
        raise DataError(
            f"{lost} of {records} records are bad, more than data.max_bad_fraction {allowed:g} allows. {first}: "
            f"{'; '.join(shown)}. All of them: {kept}. Correct the input, or raise data.max_bad_fraction."
        )


def _check_splits(plan: Plan, report: Report) -> None:
    sizes = {split: report.counts[f"lists/{split}"] for split in plan.split_names}
    empty = [split for split, lists in sizes.items() if not lists]
    if empty:
        sizes_text = ", ".join(f"{split} {lists}" for split, lists in sizes.items())
        raise DataError(
            f"split {empty[0]} has no list (lists: {sizes_text}). Give it a larger share in data.splits, or its own "
            f"files in data.input.{empty[0]}."
        )


def _check_list_lengths(plan: Plan, report: Report) -> None:
    """Raises DataError where every list has one item: the group id is probably the wrong column."""
    lists = report.counts["lists/train"]
    if lists and report.counts["one_item/train"] == lists:
        data = plan.config.data
        source = "data.group_from: record" if data.group_from == "record" else repr(data.group_id)
        raise DataError(
            f"data.group_id: {source} gives only lists of one item in split train ({lists} lists), so there is nothing "
            "to rank. Choose the column whose value is the same for all items of one search or page."
        )


def _rename_shards(plan: Plan, split: str) -> dict[str, Any]:
    """Gives a split's shards the names that stock ExampleGen uses, which contain their number; new name → span."""
    files = storage.artifact_files()
    shards = sorted(files.glob(os.path.join(parts_folder(plan.folder, split), "*.gz")))
    folder = os.path.join(plan.folder, f"Split-{split}")
    files.makedirs(folder)
    span_of_shard = {}
    for i, shard in enumerate(shards):
        name = f"data_tfrecord-{i:05d}-of-{len(shards):05d}.gz"
        files.rename(shard, os.path.join(folder, name), overwrite=True)
        span_of_shard[name] = span_of(os.path.basename(shard))
    return span_of_shard


_COUNTS = (  # counts of the reports that are properties of the artifact
    *("records_in", "quarantined", "capped", "capped_lists", "dropped", "dropped_lists", "duplicates"),
    *("context_differs", "shared_group_ids"),
)


def _properties(plan: Plan, report: Report, source: dict[str, Any]) -> dict[str, Any]:
    """The properties of the Examples artifact, and `split_names`."""
    counts = report.counts
    lists = sum(counts[f"lists/{split}"] for split in plan.split_names)
    items = sum(counts[f"items/{split}"] for split in plan.split_names)
    missing = {key.split("/", 1)[1]: n for key, n in sorted(counts.items()) if key.startswith("missing/")}
    _warn_of_empty_features(plan, missing, lists, items)
    summary = f"{lists:,} lists, {items:,} items, {counts['quarantined']:,} quarantined"
    for key, label in (("capped", "capped"), ("dropped_lists", "lists dropped"), ("duplicates", "duplicate ids")):
        summary += f", {counts[key]:,} {label}" if counts[key] else ""
    one_item = sum(counts[f"one_item/{split}"] for split in plan.split_names)
    summary += f", {one_item:,} lists of one item" if 2 * one_item > lists else ""
    if not sum(counts[f"labels_differ/{split}"] for split in plan.split_names):
        summary += f", no list has two different values of {plan.config.data.label!r}"
    if len(taken := source.get("spans", [])) > 1:
        summary += f", spans {spans.text(taken)}"
    if absent := source.get("missing_spans"):
        logging.warning("Spans of the window are missing: %s.", spans.text(absent))
        summary += f", without {spans.text(absent)}"
    if repeated := source.get("repeated"):
        logging.warning("Not read, because an earlier file has the same bytes: %s", ", ".join(repeated))
        summary += f", {len(repeated)} repeated file{'s' * (len(repeated) != 1)} left out"
    return {
        "split_names": plan.split_names,
        "summary": summary,
        "lists_out": lists,
        "items_out": items,
        **{key: counts[key] for key in _COUNTS},
        **{f"{kind}_{split}": counts[f"{kind}/{split}"] for split in plan.split_names for kind in ("lists", "items")},
        "missing": json.dumps(missing, ensure_ascii=False),
        "fingerprint": _fingerprint(source),
        **{
            key: json.dumps(source[key], ensure_ascii=False)
            for key in ("spans", "missing_spans", "repeated")
            if key in source
        },
    }


def _warn_of_empty_features(plan: Plan, missing: dict[str, int], lists: int, items: int) -> None:
    """Warns of features that no record has: the name may be misspelt.  In a sparse proto the name may be right."""
    for level, total in (("context", lists), ("items", items)):
        absent = [name for name in getattr(plan.config, level) if missing.get(name, 0) == total]
        if absent:
            logging.warning("%s: no record has a value of %s; is the name right?", level, ", ".join(absent))


def _fingerprint(source: dict[str, Any]) -> str:
    """32 hex digits that change with any input file."""
    import hashlib

    return hashlib.blake2b(json.dumps(source, sort_keys=True).encode(), digest_size=16).hexdigest()
