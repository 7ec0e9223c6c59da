"""Makes SavedModels without TensorFlow, with signatures but no variables; also in the split form, `saved_model.cpb`.

TensorFlow's public builds neither write nor load the split form.  But they compute its fingerprint and check its
checksums, and this is how we know that `split` is right.  It follows Riegeli's specification
(doc/riegeli_records_file_format.md in its repository) and TensorFlow's `chunk.proto`.
"""

import pathlib
import struct

import pyarrow as pa
from tensorboard.compat.proto import meta_graph_pb2, types_pb2

MASK = (1 << 64) - 1
BLOCK, BLOCK_HEADER = 1 << 16, 24


def save(directory: pathlib.Path, signatures: dict) -> pathlib.Path:
    """Writes `saved_model.pb`.  signatures: name to (method, inputs, outputs), those name to (dtype, shape or None)."""
    graph = meta_graph_pb2.MetaGraphDef()
    graph.meta_info_def.tags.append("serve")
    graph.graph_def.node.add(name="large", op="NoOp").attr["text"].s = b"graph" * 40_000  # over three blocks
    for name, (method, inputs, outputs) in signatures.items():
        definition = graph.signature_def[name]
        definition.method_name = method
        for side, tensors in ((definition.inputs, inputs), (definition.outputs, outputs)):
            for tensor, (dtype, shape) in tensors.items():
                side[tensor].name = f"of_the_graph_{tensor}:0"
                side[tensor].dtype = types_pb2.DataType.Value(f"DT_{dtype.upper()}")
                side[tensor].tensor_shape.unknown_rank = shape is None
                for size in shape or ():
                    side[tensor].tensor_shape.dim.add(size=size)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "saved_model.pb").write_bytes(field(1, 1) + field(2, graph.SerializeToString()))
    return directory


def split(directory: pathlib.Path, compression: str | None = None) -> None:
    """Replaces `saved_model.pb` by `saved_model.cpb`, in which the graph is a separate chunk.

    compression: None, "brotli" or "zstd".
    """
    whole = directory / "saved_model.pb"
    base, graph = take_graph(whole.read_bytes())
    (directory / "saved_model.cpb").write_bytes(chunked([base, graph], compression))
    whole.unlink()


def take_graph(saved_model: bytes) -> tuple[bytes, bytes]:
    """A `SavedModel` with one meta graph: the same without its graph, and the graph."""
    outer = list(fields(saved_model))
    ((_, meta_graph),) = [each for each in outer if each[0] == 2]
    inner = list(fields(meta_graph))
    ((_, graph),) = [each for each in inner if each[0] == 2]
    rest = b"".join(field(number, value) for number, value in inner if number != 2)
    return b"".join(field(number, rest if number == 2 else value) for number, value in outer), graph


def chunked(chunks: list[bytes], compression: str | None) -> bytes:
    """The Riegeli file of a base message and its `meta_graphs[0].graph_def`; each record in a chunk of its own."""
    written = [(b"s", 0, b"", 0)]
    positions = [0]  # where each chunk of the file begins
    for record in chunks:
        positions.append(end(positions[-1], written[-1]))
        written.append(records_chunk([record], compression))
    infos = b"".join(
        field(2, field(1, 1) + field(2, len(record)) + field(3, position))
        for record, position in zip(chunks, positions[1:], strict=True)
    )
    tags = b"".join(field(1, tag) for tag in (field(1, 2), field(3, 0), field(1, 2)))  # .meta_graphs [0] .graph_def
    message = field(1, 0) + field(2, tags + field(3, field(1, 1)))
    positions.append(end(positions[-1], written[-1]))
    written.append(records_chunk([field(1, field(1, 1)) + infos + field(3, message)], compression))

    stream = bytearray()
    for begin, (kind, records, data, decoded) in zip(positions, written, strict=True):
        rest = struct.pack("<QQ", len(data), highway_hash(data)) + kind + records.to_bytes(7, "little")
        rest += struct.pack("<Q", decoded)
        body = struct.pack("<Q", highway_hash(rest)) + rest + data
        finish = end(begin, (kind, records, data, decoded))
        while len(stream) < finish:
            if len(stream) % BLOCK == 0:
                header = struct.pack("<QQ", len(stream) - begin, finish - len(stream))
                stream += struct.pack("<Q", highway_hash(header)) + header
            room = min(finish - len(stream), BLOCK - len(stream) % BLOCK)
            part, body = body[:room], body[room:]
            stream += part or b"\0" * room
    return bytes(stream)


def records_chunk(records: list[bytes], compression: str | None) -> tuple[bytes, int, bytes, int]:
    """A plain chunk: kind, number of records, data, size of the records."""

    def packed(plain: bytes) -> bytes:
        return varint(len(plain)) + pa.Codec(compression).compress(plain, asbytes=True) if compression else plain

    sizes, values = packed(b"".join(varint(len(record)) for record in records)), packed(b"".join(records))
    data = (compression or "\0")[0].encode() + varint(len(sizes)) + sizes + values
    return b"r", len(records), data, sum(map(len, records))


def end(begin: int, chunk: tuple[bytes, int, bytes, int]) -> int:
    """The end of a chunk, by the specification's formulas."""
    _, records, data, _ = chunk
    usable, size = BLOCK - BLOCK_HEADER, 40 + len(data)
    overhead = (size + (begin + usable - 1) % BLOCK) // usable
    least = begin + records
    remaining = BLOCK - 1 - (least + BLOCK - 1) % BLOCK
    return max(begin + size + overhead * BLOCK_HEADER, least + max(remaining - (usable - 1), 0))


def varint(number: int) -> bytes:
    head, rest = number & 0x7F, number >> 7
    return bytes([head | 0x80]) + varint(rest) if rest else bytes([head])


def field(number: int, value: int | bytes) -> bytes:
    """One field of a message: a number, or bytes (strings, messages)."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(message: bytes):
    """Number and value of each field; messages here have only numbers and bytes."""
    at = 0

    def read() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            value |= (byte & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = read()
        value = read()
        if key & 7 == 2:
            at, value = at + value, message[at : at + value]
        yield key >> 3, value


def highway_hash(data: bytes) -> int:
    """HighwayHash-64 with Riegeli's key."""
    key = [0x2F696C6567656952, 0x0A7364726F636572] * 2
    mul0 = [0xDBE6D5D5FE4CCE2F, 0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3]
    mul1 = [0x3BD39E10CB0EF593, 0xC0ACF169B5F18A8C, 0xBE5466CF34E90C6C, 0x452821E638D01377]
    v0 = [m ^ k for m, k in zip(mul0, key, strict=True)]
    v1 = [m ^ swapped(k) for m, k in zip(mul1, key, strict=True)]

    def update(lanes) -> None:
        for i, lane in enumerate(lanes):
            v1[i] = v1[i] + mul0[i] + lane & MASK
            mul0[i] ^= (v1[i] & 0xFFFFFFFF) * (v0[i] >> 32)
            v0[i] = v0[i] + mul1[i] & MASK
            mul1[i] ^= (v0[i] & 0xFFFFFFFF) * (v1[i] >> 32)
        for source, target in ((v1, v0), (v0, v1)):
            for i in (0, 2):
                low, high = zipped(source[i], source[i + 1])
                target[i], target[i + 1] = target[i] + low & MASK, target[i + 1] + high & MASK

    whole = len(data) // 32 * 32
    for at in range(0, whole, 32):
        update(struct.unpack_from("<4Q", data, at))
    if rest := data[whole:]:
        size = len(rest)
        for i in range(4):
            v0[i] = v0[i] + (size << 32) + size & MASK
            v1[i] = rotated(v1[i] >> 32, size) << 32 | rotated(v1[i] & 0xFFFFFFFF, size)
        packet, odd = bytearray(32), size & 3
        packet[: size - odd] = rest[: size - odd]
        if size & 16:
            packet[28:] = rest[-4:]
        elif odd:
            packet[16:19] = rest[-odd:][0], rest[-odd:][odd >> 1], rest[-1]
        update(struct.unpack("<4Q", packet))
    for _ in range(4):
        update([swapped(v0[i]) for i in (2, 3, 0, 1)])
    return v0[0] + v1[0] + mul0[0] + mul1[0] & MASK


def swapped(lane: int) -> int:
    return lane >> 32 | (lane & 0xFFFFFFFF) << 32


def rotated(half: int, count: int) -> int:
    return (half << count | half >> (32 - count)) & 0xFFFFFFFF


def zipped(low: int, high: int) -> tuple[int, int]:
    """HighwayHash's zipper merge of two lanes: bytes 3 12 2 5 14 1 15 0 and 11 4 10 13 9 6 8 7 of the sixteen."""
    sixteen = struct.pack("<QQ", low, high)
    order = (3, 12, 2, 5, 14, 1, 15, 0, 11, 4, 10, 13, 9, 6, 8, 7)
    return struct.unpack("<QQ", bytes(sixteen[i] for i in order))
