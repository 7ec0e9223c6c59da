"""Reads and writes the bytes of `ExampleListWithContext` (ELWC), TensorFlow Ranking's message for one list.

An ELWC message has one serialized `tf.train.Example` for each item (field 1) and one for the context (field 2).

Input: serialized ELWC messages, or serialized Examples.  Output: the Examples in them, or one ELWC message.
The message is described here a second time, with the same wire format, for two reasons: TensorFlow Serving's proto
package is not needed at run time, and a process that has loaded the real message gets no name collision.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf import descriptor_pb2

if TYPE_CHECKING:
    import tensorflow as tf

_EXAMPLES, _CONTEXT = 1, 2  # field numbers
_LENGTH_DELIMITED = 2  # protobuf's wire type of bytes and messages
_MESSAGE = "tfx_ranking.ListOfExamples"


class Examples(NamedTuple):
    """The serialized Examples in a batch of ELWC messages."""

    context: "tf.Tensor"  # string [list]; "" (an Example without features) where a message has no context
    items: "tf.Tensor"  # string [item], all items of the batch, the first list's first
    lengths: "tf.Tensor"  # int64 [list], number of items


def split(serialized: "tf.Tensor | Sequence[bytes]") -> Examples:
    """Splits ELWC messages into their Examples, with TensorFlow operations; works inside a graph.

    serialized: string [list]; may be empty.  Raises DataLossError or InvalidArgumentError for bytes that are not ELWC.
    """
    import tensorflow as tf

    serialized = tf.convert_to_tensor(serialized, tf.string)
    lists = tf.size(serialized)
    sizes, (examples, context) = tf.io.decode_proto(
        # decode_proto refuses an empty batch.  Appending an empty message instead would copy the whole request.
        tf.cond(lists > 0, lambda: serialized, lambda: tf.constant([""])),
        message_type=_MESSAGE,
        field_names=["examples", "context"],
        output_types=[tf.string, tf.string],
        descriptor_source=_DESCRIPTOR,
    )
    items = tf.boolean_mask(examples, tf.sequence_mask(sizes[:, 0], tf.shape(examples)[1]))
    contexts = tf.concat([context, tf.fill([tf.shape(context)[0], 1], "")], axis=1)[:lists, 0]
    return Examples(contexts, items, tf.cast(sizes[:lists, 0], tf.int64))


def join(items: Sequence[bytes], context: bytes) -> bytes:
    """One serialized ELWC message from serialized Examples, one for each item and one for the context.

    >>> join([b"first", b"second"], b"context")
    b'\\n\\x05first\\n\\x06second\\x12\\x07context'
    """
    return b"".join([*(_field(_EXAMPLES, item) for item in items), _field(_CONTEXT, context)])


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    size, length = len(payload), b""
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | _LENGTH_DELIMITED]) + length + bytes([size]) + payload


def _descriptor() -> bytes:
    field = descriptor_pb2.FieldDescriptorProto
    message = descriptor_pb2.DescriptorProto(
        name="ListOfExamples",
        field=[
            field(name="examples", number=_EXAMPLES, label=field.LABEL_REPEATED, type=field.TYPE_BYTES),
            field(name="context", number=_CONTEXT, label=field.LABEL_OPTIONAL, type=field.TYPE_BYTES),
        ],
    )
    file = descriptor_pb2.FileDescriptorProto(
        name="tfx_ranking/list_of_examples.proto", package="tfx_ranking", message_type=[message]
    )
    return b"bytes://" + descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString(deterministic=True)


_DESCRIPTOR = _descriptor()
