"""TFRecord files and the tf.train.Example messages in them, read without TensorFlow.

A record is: length (8 bytes), masked CRC-32C of these (4), payload, masked CRC-32C of the payload (4). The payload is a
protocol-buffer message `Example { features { feature: map<string, bytes_list | float_list | int64_list> } }`.
"""

import os
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numba import njit

from rahf.data.samples import RecordError

Feature = list[bytes] | list[float] | list[int]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MASK_DELTA = 0xA282EAD8
LONGEST = 1 << 26  # bytes of a record; theirs have under a megabyte
MOST_FIELDS = 200_000  # of one message, nested ones included; theirs have under a hundred


def read_records(path: str | Path) -> Iterator[bytes]:
    """Payloads of a TFRecord file, in order, each checked.

    Raises RecordError that names the file and record if a checksum is wrong or the file ends within a record.
    """
    path = Path(path)
    with open(path, "rb") as file:
        end = os.fstat(file.fileno()).st_size
        place = 0
        while head := file.read(12):
            name = f"{path.name} record {place}"
            if len(head) < 12:
                raise RecordError(f"{name}: the file ends within the record's length; fetch it again")
            length, length_check = struct.unpack("<QI", head)
            if masked_crc32c(head[:8]) != length_check:
                raise RecordError(
                    f"{name}: the checksum of its length is wrong; the file is damaged or no TFRecord file"
                )
            if length > LONGEST:
                raise RecordError(f"{name}: it claims {length} bytes; the limit is {LONGEST}")
            if length + 4 > end - file.tell():
                raise RecordError(f"{name}: the file ends within the record; fetch it again")
            body = file.read(length + 4)
            payload = body[:length]
            if masked_crc32c(payload) != struct.unpack("<I", body[length:])[0]:
                raise RecordError(f"{name}: the checksum of its content is wrong; fetch the file again")
            yield payload
            place += 1


def masked_crc32c(data: bytes) -> int:
    """The rotated and offset CRC-32C (Castagnoli) that TFRecord files store."""
    crc = int(_crc32c(np.frombuffer(data, dtype=np.uint8), _table()))
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


@cache
def _table() -> np.ndarray:
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = np.where(crc & 1, (crc >> 1) ^ np.uint32(0x82F63B78), crc >> 1).astype(np.uint32)
    return crc


@njit
def _crc32c(data: np.ndarray, table: np.ndarray) -> np.uint32:
    crc = np.uint32(0xFFFFFFFF)
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> np.uint32(8))
    return crc ^ np.uint32(0xFFFFFFFF)


def parse_example(payload: bytes) -> dict[str, Feature]:
    """Features by name of a serialised tf.train.Example. Raises RecordError if the bytes are no such message."""
    found: dict[str, Feature] = {}
    message = _Message()
    try:
        for number, features in message.fields(payload):
            if number != 1:
                continue
            for entry_number, entry in message.fields(_as_bytes(features)):
                if entry_number == 1:
                    parts = dict(message.fields(_as_bytes(entry)))
                    found[_as_bytes(parts[1]).decode()] = message.feature(_as_bytes(parts.get(2, b"")))
    except (IndexError, KeyError, UnicodeDecodeError, struct.error, TypeError) as error:
        raise RecordError("the record holds no tf.train.Example message") from error
    return found


class _Message:
    """A reader of fields that counts them: a few bytes may not stand for hours of work."""

    def __init__(self) -> None:
        self.left = MOST_FIELDS

    def feature(self, message: bytes) -> Feature:
        """The values of a `Feature`, whichever list it holds."""
        for number, part in self.fields(message):
            values = list(self.fields(_as_bytes(part)))
            if number == 1:
                return [_as_bytes(value) for _, value in values]
            if number == 2:  # packed, or one fixed 32-bit field a value
                self._count(sum(len(_as_bytes(value)) for _, value in values) // 4)
                return [item for _, value in values for (item,) in struct.iter_unpack("<f", _as_bytes(value))]
            if number == 3:
                return [_signed(item) for _, value in values for item in self._integers(value)]
        return []

    def fields(self, message: bytes) -> Iterator[tuple[int, int | bytes]]:
        """Number and content of each field."""
        place = 0
        while place < len(message):
            self._count()
            key, place = _varint(message, place)
            kind = key & 7
            if kind == _VARINT:
                value, place = _varint(message, place)
                yield key >> 3, value
                continue
            if kind == _BYTES:
                length, place = _varint(message, place)
            elif kind in (_FIXED32, _FIXED64):
                length = 4 if kind == _FIXED32 else 8
            else:
                raise TypeError(f"wire type {kind}")
            if place + length > len(message):
                raise IndexError("a field ends beyond the message")
            yield key >> 3, message[place : place + length]
            place += length

    def _integers(self, value: int | bytes) -> Iterator[int]:
        if isinstance(value, int):
            yield value
            return
        place = 0
        while place < len(value):
            self._count()
            item, place = _varint(value, place)
            yield item

    def _count(self, fields: int = 1) -> None:
        self.left -= fields
        if self.left < 0:
            raise RecordError(f"the record holds over {MOST_FIELDS} fields; it is damaged or made to cost time")


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):  # ten bytes hold 64 bits
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place
    raise IndexError("a number has over ten bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise TypeError("a number stands where a message should")
    return value
