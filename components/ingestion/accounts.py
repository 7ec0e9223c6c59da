"""Finishes an ingestion: merges the workers' reports, checks them, and moves the shards into place.

Input: a `workers.Plan` whose files have been read.  Output: the splits, `quarantine.jsonl` and the artifact's
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
from tfx_ranking.components.ingestion import spans, workers
from tfx_ranking.components.ingestion.grouping import group_order_error
from tfx_ranking.components.ingestion.shards import parts_folder, span_of
from tfx_ranking.components.lists.list_examples import SPANS_OF_SHARDS

QUARANTINE = "quarantine.jsonl"


def finish(task: workers.Plan, source: dict[str, Any]) -> dict[str, Any]:
    """Moves the shards and the quarantine into place, checks the workers' reports, and returns the properties.

    Raises DataError as `example_gen.ingest` does, and the first error that a worker reports.
    """
    fileio = storage.artifact_files()

    report = _merged(task)
    _check_groups(task, report)
    _write_quarantine(task, report)
    _check_bad(task, report)
    _check_splits(task, report)
    _check_order(task, report)
    of_shards = {split: _place_shards(task, split) for split in task.split_names}
    if "spans" in source:
        with fileio.open(os.path.join(task.folder, SPANS_OF_SHARDS), "w") as opened:
            opened.write(json.dumps(of_shards))
    fileio.rmtree(os.path.join(task.folder, "parts"))
    return _properties(task, report, source)


def _merged(task: workers.Plan) -> workers.Report:
    fileio = storage.artifact_files()

    report = workers.Report()
    for path in sorted(fileio.glob(os.path.join(parts_folder(task.folder, "reports"), "*.pickle"))):
        with fileio.open(path, "rb") as opened:
            report.merge(pickle.loads(opened.read()))
    if report.error:
        raise report.error
    counts = report.counts
    out = sum(counts[f"items/{split}"] for split in task.split_names)
    lost = counts["quarantined"] + counts["capped"] + counts["dropped"]
    if counts["records_in"] != out + lost:
        raise RuntimeError(
            f"{counts['records_in']} records in, but {out} items out and {lost} set aside: RankingExampleGen lost "
            "some. This is a defect of tfx-ranking; please report it with the input's format."
        )
    return report


def _check_groups(task: workers.Plan, report: workers.Report) -> None:
    """A group that is in two files of a grouped input is an error; one that is in two splits' files is a warning."""
    paths = [unit.path for unit in task.units]
    owners: dict[bytes, str] = {}
    order = list(SPLIT_NAMES)
    shared: collections.Counter = collections.Counter()
    by_row = not FORMATS[task.config.data.format].lists
    for origin, groups in sorted(report.groups.items()):
        first: dict[tuple, tuple] = {}
        for group, file, row in sorted(groups, key=lambda each: each[1:]) if by_row else groups:
            list_id = group, task.units[file].span
            if list_id in first and by_row and task.streamed:
                earlier = first[list_id]
                raise group_order_error(group, (paths[earlier[0]], earlier[1]), (paths[file], row))
            first[list_id] = (file, row)
        for group, _ in first:
            if owners.setdefault(group, origin) != origin:
                shared[" and ".join(sorted((owners[group], origin), key=order.index))] += 1
    for pair, count in sorted(shared.items()):
        logging.warning(
            "%d group ids stand in the files of both %s. Ids are scoped to their split, so the lists are kept apart; "
            "if they are the same queries, the splits leak.",
            count,
            pair,
        )
        report.counts["shared_group_ids"] += count


def _write_quarantine(task: workers.Plan, report: workers.Report) -> None:
    fileio = storage.artifact_files()

    report.bad.sort()
    lines = [
        json.dumps({"file": task.units[file].path, "position": bad.position, "reason": bad.reason, "items": bad.items})
        for file, bad in report.bad
    ]
    with fileio.open(os.path.join(task.folder, QUARANTINE), "w") as opened:
        opened.write("".join(line + "\n" for line in lines))


def _check_bad(task: workers.Plan, report: workers.Report) -> None:
    fileio = storage.artifact_files()

    records, bad = report.counts["records_in"], report.counts["quarantined"]
    if not records:
        names = ", ".join(unit.path for unit in task.units[:3])
        raise DataError(f"data.input: the files hold no record ({names}); there is nothing to learn from.")
    allowed = task.config.data.max_bad_fraction
    if bad / records > allowed:
        # TFX removes a failed execution's own folder.
        kept = task.folder.rstrip("/") + "-" + QUARANTINE
        fileio.copy(os.path.join(task.folder, QUARANTINE), kept, overwrite=True)
        shown = [f"{task.units[file].path}:{each.position}: {each.reason}" for file, each in report.bad[:3]]
        first = f"The first {len(shown)}" if len(shown) > 1 else "The first"
        raise DataError(
            f"{bad} of {records} records are bad, more than data.max_bad_fraction {allowed:g} allows. {first}: "
            f"{'; '.join(shown)}. All of them: {kept}. Mend the input, or raise the fraction."
        )


def _check_splits(task: workers.Plan, report: workers.Report) -> None:
    sizes = {split: report.counts[f"lists/{split}"] for split in task.split_names}
    empty = [split for split, lists in sizes.items() if not lists]
    if empty:
        sizes_text = ", ".join(f"{split} {lists}" for split, lists in sizes.items())
        raise DataError(
            f"split {empty[0]} has no list (lists: {sizes_text}). Give it more of data.splits, or files of its own in "
            f"data.input.{empty[0]}."
        )


def _check_order(task: workers.Plan, report: workers.Report) -> None:
    """Any model is perfect on lists of one item; mostly the group id is the wrong column."""
    lists = report.counts["lists/train"]
    if lists and report.counts["one_item/train"] == lists:
        named = "each record is" if task.config.data.group_from == "record" else f"{task.config.data.group_id!r} makes"
        raise DataError(
            f"data.group_id: {named} a list of one item, {lists} times in split train: there is nothing to order. Name "
            "the column that the items of one search or page have in common."
        )


def _place_shards(task: workers.Plan, split: str) -> dict[str, Any]:
    """Renames a split's shards to the stock names, now that their number is known; their spans by these names."""
    fileio = storage.artifact_files()

    shards = sorted(fileio.glob(os.path.join(parts_folder(task.folder, split), "*.gz")))
    folder = os.path.join(task.folder, f"Split-{split}")
    fileio.makedirs(folder)
    of_shards = {}
    for i, shard in enumerate(shards):
        name = f"data_tfrecord-{i:05d}-of-{len(shards):05d}.gz"
        fileio.rename(shard, os.path.join(folder, name), overwrite=True)
        of_shards[name] = span_of(os.path.basename(shard))
    return of_shards


def _properties(task: workers.Plan, report: workers.Report, source: dict[str, Any]) -> dict[str, Any]:
    counts = report.counts
    lists = sum(counts[f"lists/{split}"] for split in task.split_names)
    items = sum(counts[f"items/{split}"] for split in task.split_names)
    missing = {key.split("/", 1)[1]: n for key, n in sorted(counts.items()) if key.startswith("missing/")}
    _warn_of_absent(task, missing, lists, items)
    summary = f"{lists:,} lists, {items:,} items, {counts['quarantined']:,} quarantined"
    for key, label in (("capped", "capped"), ("dropped_lists", "lists dropped"), ("duplicates", "duplicate ids")):
        summary += f", {counts[key]:,} {label}" if counts[key] else ""
    one_item = sum(counts[f"one_item/{split}"] for split in task.split_names)
    summary += f", {one_item:,} lists of one item" if 2 * one_item > lists else ""
    if not sum(counts[f"differ/{split}"] for split in task.split_names):
        summary += f", in none two items differ in {task.config.data.label!r}"
    if len(taken := source.get("spans", [])) > 1:
        summary += f", spans {spans.text(taken)}"
    if absent := source.get("missing_spans"):
        logging.warning("Of the window's spans %s are missing.", spans.text(absent))
        summary += f", without {spans.text(absent)}"
    if repeated := source.get("repeated"):
        logging.warning("Left out because an earlier file has the same bytes: %s", ", ".join(repeated))
        summary += f", {len(repeated)} repeated file{'s' * (len(repeated) != 1)} left out"
    plain = {
        key: counts[key]
        for key in ("records_in", "quarantined", "capped", "capped_lists", "dropped", "dropped_lists", "duplicates")
    }
    plain.update({key: counts[key] for key in ("context_differs", "shared_group_ids")})
    return {
        "split_names": task.split_names,
        "payload_format": "FORMAT_TF_EXAMPLE",  # TFX's own properties, by which its components read the files
        "file_format": "tfrecords_gzip",
        "summary": summary,
        "lists_out": lists,
        "items_out": items,
        **plain,
        **{f"{kind}_{split}": counts[f"{kind}/{split}"] for split in task.split_names for kind in ("lists", "items")},
        "missing": json.dumps(missing, ensure_ascii=False),
        "fingerprint": _fingerprint(source),
        **{
            key: json.dumps(source[key], ensure_ascii=False)
            for key in ("spans", "missing_spans", "repeated")
            if key in source
        },
    }


def _warn_of_absent(task: workers.Plan, missing: dict[str, int], lists: int, items: int) -> None:
    """A feature that no record has may be a misspelt name; in sparse protos it may be right."""
    for level, total in (("context", lists), ("items", items)):
        absent = [name for name in getattr(task.config, level) if missing.get(name, 0) == total]
        if absent:
            logging.warning("%s: no record has a value of %s; is the name right?", level, ", ".join(absent))


def _fingerprint(source: dict[str, Any]) -> str:
    import hashlib

    return hashlib.blake2b(json.dumps(source, sort_keys=True).encode(), digest_size=16).hexdigest()
