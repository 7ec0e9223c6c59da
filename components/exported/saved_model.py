"""Reads the signatures of a SavedModel from its file, without TensorFlow.

Input: the folder of a SavedModel.  Output: names, dtypes and shapes.  The file's outer messages contain the signatures,
so the graph is not parsed, and TensorFlow, whose import takes seconds, is not needed.

A SavedModel larger than protobuf's limit of 2 GB is split and stored as `saved_model.cpb`, a Riegeli file.  Its records
are parts of the message; the last record is an index of them, and names the part that has everything but the graph.
"""

import dataclasses
import os
import pathlib
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tfx_ranking.components.errors import DataError, RankingError

Path = str | os.PathLike[str]
BLOCK, BLOCK_HEADER, CHUNK_HEADER = 1 << 16, 24, 40  # bytes, of a Riegeli file
CODECS = {ord("b"): "brotli", ord("z"): "zstd"}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One input or output: TensorFlow's names for its dtype, and its shape: -1 is any size, None any rank."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class SignatureDefinition:
    """One signature: its name, its method (such as `tensorflow/serving/predict`), its inputs and outputs."""

    name: str
    method: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def signature_definitions(directory: Path) -> tuple[SignatureDefinition, ...]:
    """A SavedModel's signatures, sorted by name.

    Raises RankingError if the directory has no SavedModel, DataError if the SavedModel is broken.
    """
    # TensorBoard contains TensorFlow's protos, and does not import TensorFlow.
    from tensorboard.compat.proto import meta_graph_pb2, types_pb2

    def tensors(infos: Mapping[str, Any]) -> tuple[Tensor, ...]:
        return tuple(
            Tensor(
                name,
                types_pb2.DataType.Name(info.dtype)[3:].lower(),
                None if info.tensor_shape.unknown_rank else tuple(d.size for d in info.tensor_shape.dim),
            )
            for name, info in sorted(infos.items())
        )

    serialized = _messages("SavedModel")(_saved_model(pathlib.Path(directory))).meta_graphs
    graphs = [meta_graph_pb2.MetaGraphDef.FromString(each) for each in serialized]
    graph = next((each for each in graphs if "serve" in each.meta_info_def.tags), graphs[0])
    return tuple(
        SignatureDefinition(name, definition.method_name, tensors(definition.inputs), tensors(definition.outputs))
        for name, definition in sorted(graph.signature_def.items())
        if name != "__saved_model_init_op"
    )


def _saved_model(directory: pathlib.Path) -> bytes:
    """The serialized `SavedModel`; for a split one, without its graph."""
    if (directory / "saved_model.pb").is_file():
        return (directory / "saved_model.pb").read_bytes()
    split = directory / "saved_model.cpb"
    if not split.is_file():
        raise RankingError(f"{directory}: expected a SavedModel, saved_model.pb or saved_model.cpb; found neither.")
    with split.open("rb") as file:
        chunks = [chunk for chunk in _chunks(file) if chunk.records]
        if not chunks:
            raise DataError(f"{split}: expected a Riegeli file with records; found none. Save the model again.")
        metadata = _messages("ChunkMetadata")(_records(file, chunks[-1])[-1])
        position = metadata.chunks[metadata.message.chunk_index].offset
        # A record's position is its chunk's plus its number in the chunk.
        chunk = max((chunk for chunk in chunks if chunk.begin <= position), key=lambda chunk: chunk.begin)
        return _records(file, chunk)[position - chunk.begin]


class _RiegeliChunk(NamedTuple):
    """One chunk of a Riegeli file: its offset, the size of its data, its kind, and its number of records."""

    begin: int
    size: int
    kind: str
    records: int


def _chunks(file: BinaryIO) -> Iterator[_RiegeliChunk]:
    """The chunks in file order; reads only their headers and does not verify checksums."""
    end, begin = file.seek(0, os.SEEK_END), 0
    while begin < end:
        header = _unframed(file, begin, CHUNK_HEADER)
        size, kind_and_records = struct.unpack("<8xQ8xQ8x", header)
        chunk = _RiegeliChunk(begin, size, chr(kind_and_records & 0xFF), kind_and_records >> 8)
        yield chunk
        begin = _end(chunk)


def _end(chunk: _RiegeliChunk) -> int:
    """The offset of the next chunk: after the data, its block headers, and the last record's position."""
    usable = BLOCK - BLOCK_HEADER
    size = CHUNK_HEADER + chunk.size
    behind = chunk.begin + size + (size + (chunk.begin + usable - 1) % BLOCK) // usable * BLOCK_HEADER
    numbered = chunk.begin + chunk.records
    return max(behind, numbered + max(-numbered % BLOCK - (usable - 1), 0))


def _records(file: BinaryIO, chunk: _RiegeliChunk) -> list[bytes]:
    if chunk.kind != "r":
        raise DataError(
            f"{file.name}: expected a plain chunk of records; got kind {chunk.kind!r}, which cannot be read."
        )
    header = CHUNK_HEADER
    data = _unframed(file, chunk.begin, header + chunk.size)[header:]
    codec = data[0]
    length, at = _varint(data, 1)
    sizes, values = _plain(data[at : at + length], codec), _plain(data[at + length :], codec)
    records, place, begin = [], 0, 0
    for _ in range(chunk.records):
        size, place = _varint(sizes, place)
        records.append(values[begin : begin + size])
        begin += size
    return records


def _unframed(file: BinaryIO, begin: int, size: int) -> bytes:
    """`size` bytes from `begin`, without the block headers between them.  Raises DataError if the file is too short."""
    parts = []
    while size:
        begin += BLOCK_HEADER if begin % BLOCK == 0 else 0
        file.seek(begin)
        part = file.read(min(size, BLOCK - begin % BLOCK))
        if not part:
            raise DataError(f"{file.name}: the file is cut off; save the model again.")
        parts.append(part)
        begin, size = begin + len(part), size - len(part)
    return b"".join(parts)


def _plain(block: bytes, codec: int) -> bytes:
    """The decompressed block; a compressed block begins with its decompressed size."""
    if not codec:
        return block
    import pyarrow as pa

    size, at = _varint(block, 0)
    plain: bytes = pa.Codec(CODECS[codec]).decompress(block[at:], decompressed_size=size, asbytes=True)
    return plain


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and the offset after it."""
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at


def _messages(name: str) -> Callable[[bytes], Any]:
    """A parser for one of the messages around the graphs, which TensorBoard lacks; it has only the needed fields."""
    field = descriptor_pb2.FieldDescriptorProto

    def message(name: str, **fields: tuple[int, int, str | None]) -> descriptor_pb2.DescriptorProto:
        """fields: name to number, type and, for a message, its name."""
        return descriptor_pb2.DescriptorProto(
            name=name,
            field=[
                field(
                    name=key,
                    number=number,
                    type=kind,
                    type_name=of,
                    label=field.LABEL_REPEATED if key in ("meta_graphs", "chunks") else field.LABEL_OPTIONAL,
                )
                for key, (number, kind, of) in fields.items()
            ],
        )

    file = descriptor_pb2.FileDescriptorProto(
        name="saved_model.proto",
        package="tfx_ranking",
        message_type=[
            message("SavedModel", meta_graphs=(2, field.TYPE_BYTES, None)),
            message(
                "ChunkMetadata",
                chunks=(2, field.TYPE_MESSAGE, ".tfx_ranking.ChunkInfo"),
                message=(3, field.TYPE_MESSAGE, ".tfx_ranking.ChunkedMessage"),
            ),
            message("ChunkInfo", offset=(3, field.TYPE_UINT64, None)),
            message("ChunkedMessage", chunk_index=(1, field.TYPE_UINT64, None)),
        ],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName(f"tfx_ranking.{name}")
    newer = getattr(message_factory, "GetMessageClass", None)  # from protobuf 4.22; 3.20 has only the other
    message_class = newer(descriptor) if newer else message_factory.MessageFactory(pool).GetPrototype(descriptor)
    parse: Callable[[bytes], Any] = message_class.FromString
    return parse
