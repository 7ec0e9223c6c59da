"""Lists the input formats that `data.format` can name.

To add an input format:
1. Write the function `read(request) -> Iterator[Chunk]` as those of `formats/tables.py`: it yields the file's columns
   in chunks, and the bad records with their position and reason.  `formats/chunks.py` has `FileRequest` and `Chunk`.
2. Add a row to `FORMATS`.  The config, its JSON schema, the ingestion and `tfx-ranking rank` read this
   table.
3. Run `python -m tfx_ranking.components.config.reference > docs/config.md`, the page of the config's keys.

From outside the package, do step 2 with `FORMATS["mine"] = Format(...)` before the config is loaded.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from tfx_ranking.components.choices.functions import load_function

_FORMATS = "tfx_ranking.components.formats"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """A row of `FORMATS`."""

    sentence: str  # for the docs
    function: str  # dotted name of the reader
    lists: bool  # True: a record is a list, and needs no group id; False: a record is an item, grouped by its group id
    size_files: bool = False  # whether the list sizes can be in a second file (`data.group_sizes`)
    endings: tuple[str, ...] = ()  # endings of file names, without .gz, that only this format has
    tfrecord: bool = False  # a kind of TFRecord file: `rank` looks for the format's name in the file's name

    @property
    def details(self) -> str:
        """A second sentence for the docs."""
        return (
            "A record is a list." if self.lists else "A record is an item; the group id says to which list it belongs."
        )

    def load(self) -> Callable[..., Any]:
        """The reader.  Raises ConfigError when it cannot be imported."""
        return load_function(self.function, "the input format's reader")


FORMATS: dict[str, Format] = {
    "letor": Format(
        sentence="Text with lines as `label qid:id 1:value 2:value # comment`; also known as SVMlight or LIBSVM.",
        function=f"{_FORMATS}.letor.read",
        lists=False,
        size_files=True,
        endings=(".txt", ".letor", ".svm", ".svmlight", ".libsvm"),
    ),
    "csv": Format(
        sentence="Comma-separated text with a header line.",
        function=f"{_FORMATS}.tables.read_csv",
        lists=False,
        endings=(".csv",),
    ),
    "parquet": Format(
        sentence="Parquet file.",
        function=f"{_FORMATS}.tables.read_parquet",
        lists=False,
        endings=(".parquet", ".pq"),
    ),
    "elwc": Format(
        sentence="TFRecord of ExampleListWithContext protos.",
        function=f"{_FORMATS}.proto_records.read_elwc",
        lists=True,
        tfrecord=True,
    ),
    "sequence_example": Format(
        sentence="TFRecord of SequenceExample protos.",
        function=f"{_FORMATS}.proto_records.read_sequence_example",
        lists=True,
        tfrecord=True,
    ),
    "tf_example": Format(
        sentence="TFRecord of Example protos, each with one item.",
        function=f"{_FORMATS}.proto_records.read_tf_example",
        lists=False,
        tfrecord=True,
    ),
    "list_example": Format(
        sentence="TFRecord of Example protos, each with a whole list, as the pipeline itself writes them.",
        function=f"{_FORMATS}.proto_records.read_list_example",
        lists=True,
        tfrecord=True,
    ),
}
