"""The real data sets as ranking configs, whole or shortened to about 60 lists.

A shortened copy has the first lists of each file, with the same bytes.
"""

import gzip
import itertools
import pathlib
import re
import shutil
from collections.abc import Callable
from typing import Any

from tfx_ranking.components.choices.signatures import COMPATIBILITY, SIGNATURES

SPLITS = ("train", "validation", "test")
SMALL_MODEL = {"scorer": "dnn", "hidden": [16, 8], "loss": "softmax"}
EVERY_SIGNATURE = {"signatures": list(SIGNATURES), "compatibility": list(COMPATIBILITY)}
SHORT_TRAINING = {"epochs": 2, "batch_lists": 16}


def lightgbm(data: pathlib.Path, folder: pathlib.Path, lists: int | None) -> dict[str, Any]:
    source = data / "lightgbm-lambdarank"
    for name in ("rank.train", "rank.test"):
        sizes = (source / f"{name}.query").read_text().split()[:lists]
        rows = sum(map(int, sizes)) if lists else None
        _cut_lines(source / name, folder / name, rows)
        (folder / f"{name}.query").write_text("\n".join(sizes) + "\n")
    return {
        "name": "lightgbm",
        "data": {
            "input": {"train": "rank.train", "test": "rank.test"},
            "format": "letor",
            "group_sizes": ".query",
            "order": "grouped",
            "label_range": [0, 4],
            "splits": {"validation": 0.2},
        },
        "items": {"f[1-300]": {}},
    }


def clueweb(data: pathlib.Path, folder: pathlib.Path, lists: int | None) -> dict[str, Any]:
    for fold in range(1, 6):
        name = f"Fold{fold}.test.txt.gz"
        source = data / "clueweb09-webis" / name
        if lists is None:
            shutil.copy(source, folder / name)
            continue
        with gzip.open(source, "rt") as rows, gzip.open(folder / name, "wt") as cut:
            groups = itertools.groupby(rows, key=lambda row: row.split(" ", 2)[1])
            for _, group in itertools.islice(groups, max(1, lists // 20)):
                cut.writelines(group)
    return {
        "name": "clueweb",
        "data": {
            "input": {"train": "Fold[123].test.txt.gz", "validation": "Fold4.test.txt.gz", "test": "Fold5.test.txt.gz"},
            "format": "letor",
            "order": "grouped",
            "label_range": [0, 4],
            "item_id": "docid",
        },
        "items": {"f[1-42]": {"transform": ["z_score"]}},
        "training": {"batch_lists": 4},
    }


_ML4IR_FEATURES = {
    "context": {
        "query_text": {"dtype": "string", "hash": {"num_buckets": 64}, "embedding": 4},
        "domain_id": {"dtype": "int"},
        "domain_name": {"dtype": "string", "vocabulary": {}, "embedding": 4},
    },
    "items": {
        "text_match_score": {"transform": ["log1p", "z_score"]},
        "page_views_score": {"transform": ["z_score"]},
        "quality_score": {"transform": ["min_max"]},
        "name_match": {},
    },
}


def ml4ir_csv(data: pathlib.Path, folder: pathlib.Path, lists: int | None) -> dict[str, Any]:
    for name in SPLITS:
        with (data / "ml4ir" / "csv" / f"{name}.csv").open("rb") as rows, (folder / f"{name}.csv").open("wb") as cut:
            cut.write(next(rows))
            cut.writelines(row for row in rows if _ml4ir_number(row, lists))
    return {"name": "ml4ir-csv", "data": _ml4ir_data("csv", "csv"), **_ML4IR_FEATURES}


def ml4ir_sequence_example(data: pathlib.Path, folder: pathlib.Path, lists: int | None) -> dict[str, Any]:
    for name in SPLITS:
        source = data / "ml4ir" / "sequence_example" / f"{name}.tfrecord"
        _cut_records(source, folder / source.name, lambda _, record: _ml4ir_number(record, lists))
    return {
        "name": "ml4ir-se",
        "data": _ml4ir_data("sequence_example", "tfrecord"),
        **_ML4IR_FEATURES,
        "serving": EVERY_SIGNATURE,
    }


def _ml4ir_number(record: bytes, lists: int | None) -> bool:
    """Whether the query's number is below `lists`; the two formats have the queries in different orders."""
    return lists is None or int(re.search(rb"query_(\d+)", record)[1]) < lists


def _ml4ir_data(format: str, suffix: str) -> dict[str, Any]:
    return {
        "input": {name: f"{name}.{suffix}" for name in ("train", "validation", "test")},
        "format": format,
        "group_id": "query_id",
        "label": "clicked",
        "position": "rank",
        "label_range": [0, 1],
    }


def tfr_numeric(data: pathlib.Path, folder: pathlib.Path, lists: int | None) -> dict[str, Any]:
    names = {"train": "train", "validation": "vali", "test": "test"}
    for name in names.values():
        _cut_records(
            data / "tfr-examples" / f"{name}_numerical_elwc.tfrecord", folder / f"{name}.tfrecord", _first(lists)
        )
    return {
        "name": "tfr-numeric",
        "data": {
            "input": {split: f"{name}.tfrecord" for split, name in names.items()},
            "format": "elwc",
            "group_from": "record",
            "label": "utility",
            "label_range": [0, 2],
        },
        "items": {"custom_features_[1-136]": {"transform": ["z_score"]}},
        "serving": EVERY_SIGNATURE,
    }


def tfr_tokens(data: pathlib.Path, folder: pathlib.Path, lists: int | None) -> dict[str, Any]:
    for name in ("train", "eval"):
        _cut_records(data / "tfr-examples" / f"{name}_elwc.tfrecord", folder / f"{name}.tfrecord", _first(lists))
    return {
        "name": "tfr-tokens",
        "data": {
            "input": {"train": "train.tfrecord", "test": "eval.tfrecord"},
            "format": "elwc",
            "group_from": "record",
            "label": "relevance",
            "splits": {"validation": 0.3},
        },
        "context": {"query_tokens": {"dtype": "string", "tokens": {}, "embedding": 4}},
        "items": {"document_tokens": {"dtype": "string", "tokens": {}, "embedding": 4}},
    }


SETS: dict[str, Callable[[pathlib.Path, pathlib.Path, int | None], dict[str, Any]]] = {
    "lightgbm": lightgbm,
    "clueweb": clueweb,
    "ml4ir-csv": ml4ir_csv,
    "ml4ir-se": ml4ir_sequence_example,
    "tfr-numeric": tfr_numeric,
    "tfr-tokens": tfr_tokens,
}


def _first(lists: int | None) -> Callable[[int, bytes], bool]:
    return lambda number, _: lists is None or number < lists


def _cut_lines(source: pathlib.Path, target: pathlib.Path, rows: int | None) -> None:
    with source.open("rb") as lines, target.open("wb") as cut:
        cut.writelines(itertools.islice(lines, rows))


def _cut_records(source: pathlib.Path, target: pathlib.Path, keep: Callable[[int, bytes], bool]) -> None:
    """Copies records with their frames: length (8 bytes), checksum (4), data, checksum (4)."""
    content, begin = source.read_bytes(), 0
    with target.open("wb") as cut:
        for number in itertools.count():
            if begin >= len(content):
                break
            end = begin + 16 + int.from_bytes(content[begin : begin + 8], "little")
            if keep(number, content[begin + 12 : end - 4]):
                cut.write(content[begin:end])
            begin = end
