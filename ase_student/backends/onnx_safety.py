"""Check the bytes of an ONNX file before they are passed to a runtime.

A runtime does whatever a file says: it opens weight files by their paths, loads operators of any
domain and reserves memory for any tensor. The check reads the protobuf wire format
(protobuf.dev/programming-guides/encoding) without a parser, copies nothing and opens no other file.
A file passes if it is complete and self-contained, has only operators that the exporter writes,
none of which branches or loops, and has tensors of reasonable size. Whether the graph is valid is
checked by the runtime.

The check does not bound the sizes of results: the sum of a column and a row has as many elements as
their product, and no shapes are inferred here. A malicious file can therefore use up all memory; it
cannot run code, or read or write files. Open files of unknown origin only where running out of
memory does no harm.

ONNX has no checksum, so exported files end with a checksum in their metadata, the seal.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

LARGEST_FILE = 512 * 2**20
"""Bytes."""
LARGEST_TENSOR = 64 * 2**20
"""Elements."""
# Students have some thousands; without a limit a hostile file could make the check take hours.
MOST_FIELDS = 1_000_000
DOMAINS = (b"", b"ai.onnx")
#: Operators that torch's exporters write for students, in this and earlier versions, and those of
#: INT8 files. None of them contains a graph, so that nothing can run forever.
OPERATORS = frozenset(
    b"Abs Add Cast CastLike Clip Concat Constant Cos DequantizeLinear Div DynamicQuantizeLinear "
    b"Equal Exp Expand Flatten Gather GatherND Gemm Greater GreaterOrEqual Identity Less "
    b"LessOrEqual MatMul MatMulInteger Max Min Mul Neg Not Pow QuantizeLinear Reciprocal "
    b"ReduceSum Relu Reshape Shape Sigmoid Sin Slice Softplus Split Sqrt Squeeze Sub Sum "
    b"Transpose Unsqueeze Where".split()
)
SEAL_KEY = b"ase_student_sha256"


class _MessageFields(NamedTuple):
    """The fields of a message that are checked, by their numbers in ``onnx.proto``."""

    submessages: dict[int, "_MessageFields"]
    # Fields that may occur only once: a parser would merge several occurrences into one message.
    single: tuple[int, ...] = ()
    domain: int = 0
    operator: int = 0
    dims: int = 0
    # Whole numbers, packed or in little-endian bytes; a small tensor of these may be a shape.
    integers: tuple[int, ...] = ()
    # Fields that a self-contained file does not have.
    external: tuple[int, ...] = ()


_OPERATOR_SET = _MessageFields({}, domain=1)
_TENSOR = _MessageFields({}, dims=1, integers=(7, 9), external=(13, 14))
_SPARSE_TENSOR = _MessageFields({1: _TENSOR, 2: _TENSOR}, single=(1, 2), dims=3)
_ATTRIBUTE = _MessageFields(
    {5: _TENSOR, 10: _TENSOR, 22: _SPARSE_TENSOR, 23: _SPARSE_TENSOR}, single=(5, 6, 22)
)
_NODE = _MessageFields({5: _ATTRIBUTE}, domain=7, operator=4)
_GRAPH = _MessageFields({1: _NODE, 5: _TENSOR, 15: _SPARSE_TENSOR})
# Graphs in attributes: the branches and bodies of control flow.
_ATTRIBUTE.submessages.update({6: _GRAPH, 11: _GRAPH})
_FUNCTION = _MessageFields({7: _NODE, 9: _OPERATOR_SET, 11: _ATTRIBUTE}, domain=10)
_TRAINING = _MessageFields({1: _GRAPH, 2: _GRAPH}, single=(1, 2))
_MODEL = _MessageFields({7: _GRAPH, 8: _OPERATOR_SET, 20: _TRAINING, 25: _FUNCTION}, single=(7,))

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: A value of TensorProto.DataType.
_INT64 = 7
#: Bytes; longer tensors are not shapes.
_LONGEST_SHAPE = 32
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_Part: TypeAlias = tuple[_MessageFields, int, int]


def check_onnx(content: bytes, file: str, trust: bool = False) -> None:
    """Check that an ONNX file is safe to pass to a runtime.

    Parameters
    ----------
    content : bytes
    file : str
        Name of the file in error messages.
    trust : bool
        Allow all standard operators, including those that loop.

    Raises
    ------
    ValueError
        If the file is malformed or too large, was changed after it was sealed, refers to other
        files, or has operators or tensors that no student has.
    """
    try:
        if len(content) > LARGEST_FILE:
            raise ValueError(f"is larger than {LARGEST_FILE // 2**20} MB, which no student is.")
        _check_seal(content)
        # Messages within messages are queued here, so that deep nesting needs no recursion.
        pending: list[_Part] = [(_MODEL, 0, len(content))]
        n_fields, has_graph = 0, False
        while pending:
            message, start, end = pending.pop()
            n_fields += _check_message(content, message, start, end, pending)
            if not trust:
                _check_program(content, message, start, end)
            has_graph = has_graph or message is _GRAPH
            if n_fields > MOST_FIELDS:
                raise ValueError(f"has more than {MOST_FIELDS:,} parts, which no student has.")
        if not has_graph:
            raise _malformed("it has no graph")
    except ValueError as error:
        raise ValueError(f"'{file}' {error}") from None


def seal(content: bytes) -> bytes:
    """Return an ONNX file with the SHA-256 of all its bytes as its last metadata entry."""
    digest = hashlib.sha256(content).hexdigest().encode()
    return content + _SEAL_HEAD + digest


def _seal_head() -> bytes:
    """Return the bytes before the digest: an entry of ModelProto.metadata_props, field 14."""
    entry = bytes([1 << 3 | _BYTES, len(SEAL_KEY)]) + SEAL_KEY + bytes([2 << 3 | _BYTES, 64])
    return bytes([14 << 3 | _BYTES, len(entry) + 64]) + entry


_SEAL_HEAD = _seal_head()
_SEAL_SIZE = len(_SEAL_HEAD) + 64


def _check_seal(content: bytes) -> None:
    # A file without a seal passes: it may have been converted on purpose.
    if content[-_SEAL_SIZE:].startswith(_SEAL_HEAD):
        digest = hashlib.sha256(memoryview(content)[:-_SEAL_SIZE]).hexdigest()
        if content[-64:] != digest.encode():
            raise ValueError("was damaged or changed after its export: its SHA-256 does not match.")


def _check_message(
    content: bytes, message: _MessageFields, position: int, end: int, pending: list[_Part]
) -> int:
    """Check a message, append the messages in it to `pending` and return its number of fields."""
    n_fields, n_elements = 0, 1
    seen_fields = set()
    while position < end:
        n_fields += 1
        if n_fields > MOST_FIELDS:
            break
        key, position = _varint(content, position, end)
        field, kind = key >> 3, key & 7
        value = start = position
        if kind == _VARINT:
            value, position = _varint(content, position, end)
        elif kind == _BYTES:
            size, start = _varint(content, position, end)
            position = start + size
        elif kind in _FIXED_SIZES:
            position += _FIXED_SIZES[kind]
        else:
            raise _malformed(f"it has a field of unknown type {kind}")
        if field == 0 or position > end:
            raise _malformed("it has field 0" if field == 0 else "it ends in the middle of a field")
        if field in message.single:
            if field in seen_fields:
                raise _malformed("it has a part twice that may occur only once")
            seen_fields.add(field)
        if field in message.submessages:
            if kind != _BYTES:
                raise _malformed(f"field {field} is not a message")
            pending.append((message.submessages[field], start, position))
        elif field in message.external and (kind != _VARINT or value):
            raise ValueError("has tensors in other files; a student's file contains all of them.")
        elif field == message.domain and kind == _BYTES:
            _check_domain(content[start:position])
        elif field == message.dims and kind in (_VARINT, _BYTES):
            sizes = [value] if kind == _VARINT else _varints(content, start, position)
            n_elements = _checked_product(n_elements, sizes)
    return n_fields


def _check_program(content: bytes, message: _MessageFields, start: int, end: int) -> None:
    """Refuse operators that no student has, and constant shapes that need too much memory."""
    if message is _FUNCTION or message is _TRAINING:
        raise ValueError("has functions or training of its own, which no student has.")
    if message is not _NODE and message is not _TENSOR:
        return
    is_int64, shape = False, []
    for field, kind, value, first, last in _fields(content, start, end):
        if field == message.operator and kind == _BYTES and content[first:last] not in OPERATORS:
            name = content[first : min(last, first + 40)].decode(errors="replace")
            raise ValueError(
                f"has the operator {name!r}, which no student has; pass trust=True if you know who "
                "made the file."
            )
        if message is not _TENSOR:
            continue
        if field == 2 and kind == _VARINT:
            is_int64 = value == _INT64
        if field in message.integers and kind == _BYTES and last - first <= _LONGEST_SHAPE:
            shape = (
                [int.from_bytes(content[i : i + 8], "little") for i in range(first, last, 8)]
                if field == 9
                else _varints(content, first, last)
            )
        if field == 7 and kind == _VARINT:
            shape.append(value)
    if is_int64:
        # -1 means the remaining size, and the largest number the end of an axis.
        _checked_product(1, [size for size in shape if 0 < size < 2**63 - 1])


def _fields(content: bytes, position: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield field, kind, value, start and end of the parts of a message that was checked before."""
    while position < end:
        key, position = _varint(content, position, end)
        value = start = position
        kind = key & 7
        if kind == _VARINT:
            value, position = _varint(content, position, end)
        elif kind == _BYTES:
            size, start = _varint(content, position, end)
            position = start + size
        else:
            position += _FIXED_SIZES[kind]
        yield key >> 3, kind, value, start, position


def _check_domain(domain: bytes) -> None:
    if domain not in DOMAINS:
        name = domain[:40].decode(errors="replace")
        raise ValueError(
            f"has operators of domain {name!r}; a student has only standard operators."
        )


def _checked_product(n_elements: int, sizes: list[int]) -> int:
    for size in sizes:
        n_elements *= size
        # Negative sizes are read as very large numbers here.
        if max(n_elements, size) > LARGEST_TENSOR:
            raise ValueError(f"has a tensor of more than {LARGEST_TENSOR:,} elements.")
    return n_elements


def _varint(content: bytes, position: int, end: int) -> tuple[int, int]:
    """Read an integer in base 128, least significant digit first; return it and where it ends."""
    value = shift = 0
    while position < end and shift < 70:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _malformed("it ends in the middle of a number" if shift < 70 else "a number is too long")


def _varints(content: bytes, position: int, end: int) -> list[int]:
    values: list[int] = []
    while position < end and len(values) < 64:
        value, position = _varint(content, position, end)
        values.append(value)
    if position < end:
        raise _malformed("a tensor has too many axes")
    return values


def _malformed(reason: str) -> ValueError:
    return ValueError(f"is not a readable ONNX file: {reason}.")
