"""The list of a zip file's members, and their bytes, without an object per member.

`zipfile.ZipFile` makes an object of about a kilobyte for each of its members before it gives the first one. The
published IDC zip has 555,000 members and is opened once for each of its 279 cases and reading process, so the list
is searched as bytes here, and only the members that are wanted are made.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO
from zipfile import BadZipFile

_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_END_64_LOCATOR_SIZE = 20
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_ENTRY_MAGIC = b"PK\x01\x02"
_LOCAL = struct.Struct("<4s5H3L2H")
_LOCAL_MAGIC = b"PK\x03\x04"

_MAX_COMMENT = 1 << 16
_IN_EXTRA_FIELD = 0xFFFFFFFF
_ENCRYPTED, _UTF8 = 0x1, 0x800
_STORED, _DEFLATED = 0, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipMember:
    """One file in a zip."""

    name: str
    """Path in the zip, with forward slashes."""
    crc: int
    """CRC-32 of its bytes."""
    size: int
    """Bytes once unpacked."""
    packed: int
    """Bytes in the zip."""
    method: int
    """Compression: 0 stored, 8 deflated."""
    offset: int
    """Where its local header starts."""
    encrypted: bool
    """Whether a password is needed."""


def list_members(file: BinaryIO, containing: str = "") -> Iterator[ZipMember]:
    """The members of a zip, folders left out, in the order of its list.

    Args:
        file: The open zip.
        containing: Only members whose path holds this text.

    Raises:
        BadZipFile: where the file is no zip or its list is damaged.
    """
    directory, shift = _read_directory(file)
    # Names are UTF-8 or, in old zips, code page 437; for ASCII both are the same bytes.
    wanted = containing.encode() if containing.isascii() else b""
    position = 0
    while position < len(directory):
        try:
            (magic, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length, _, _, _,
             offset) = _ENTRY.unpack_from(directory, position)  # fmt: skip
        except struct.error as error:
            raise BadZipFile("its list of members is cut off") from error
        if magic != _ENTRY_MAGIC:
            raise BadZipFile("its list of members is damaged")
        start = position + _ENTRY.size
        raw = directory[start : start + name_length]
        extra = start + name_length
        position = extra + extra_length + comment_length
        if wanted not in raw or raw.endswith(b"/"):
            continue
        name = raw.decode("utf-8" if flags & _UTF8 else "cp437", "replace")
        if containing not in name:
            continue
        if _IN_EXTRA_FIELD in (size, packed, offset):
            size, packed, offset = _large_values(directory[extra : extra + extra_length], size, packed, offset)
        yield ZipMember(
            name=name,
            crc=crc,
            size=size,
            packed=packed,
            method=method,
            offset=offset + shift,
            encrypted=bool(flags & _ENCRYPTED),
        )


def read_member(file: BinaryIO, member: ZipMember) -> bytes:
    """The unpacked bytes of a member.

    Raises:
        BadZipFile: where they are damaged, encrypted or packed in an unknown way.
    """
    data = _unpack(member, _packed_bytes(file, member, member.packed), member.size)
    if len(data) != member.size or zlib.crc32(data) != member.crc:
        raise BadZipFile("its bytes in the zip are damaged")
    return data


def read_head(file: BinaryIO, member: ZipMember, length: int) -> bytes:
    """The first bytes of a member, at most `length`; unchecked.

    Raises:
        BadZipFile: as `read_member`.
    """
    # Deflate may put a table of codes of up to some 300 bytes before the first byte.
    return _unpack(member, _packed_bytes(file, member, min(member.packed, length + 512)), length)[:length]


def _read_directory(file: BinaryIO) -> tuple[bytes, int]:
    """The list of members as bytes, and how far offsets are off by what stands before the zip."""
    file_size = file.seek(0, 2)
    tail_start = max(0, file_size - _END.size - _MAX_COMMENT)
    file.seek(tail_start)
    tail = file.read()
    found = tail.rfind(_END_MAGIC)
    if found < 0 or found + _END.size > len(tail):
        raise BadZipFile("has no list of members at its end")
    _, _, _, _, _, size, offset, _ = _END.unpack_from(tail, found)
    end = tail_start + found
    locator = end - _END_64_LOCATOR_SIZE
    file.seek(max(0, locator))
    if file.read(4) == b"PK\x06\x07":  # over 65,535 members or 4 GiB: the true numbers stand before
        end = locator - _END_64.size
        file.seek(max(0, end))
        record = file.read(_END_64.size)
        if not record.startswith(b"PK\x06\x06"):
            raise BadZipFile("the end of its list of members is damaged")
        *_, size, offset = _END_64.unpack(record)
    start = end - size
    if start < 0 or start < offset:
        raise BadZipFile("its list of members is cut off")
    file.seek(start)
    return file.read(size), start - offset


def _large_values(extra: bytes, *values: int) -> tuple[int, int, int]:
    """Size, packed size and offset, of which those over 4 GiB stand in the entry's extra field."""
    position = 0
    large: Iterator[int] = iter(())
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            content = extra[position + 4 : position + 4 + length // 8 * 8]
            large = iter(struct.unpack(f"<{len(content) // 8}Q", content))
        position += 4 + length
    try:
        size, packed, offset = (next(large) if value == _IN_EXTRA_FIELD else value for value in values)
    except (RuntimeError, ValueError) as error:
        raise BadZipFile("its list of members is damaged") from error
    return size, packed, offset


def _packed_bytes(file: BinaryIO, member: ZipMember, length: int) -> bytes:
    if member.encrypted:
        raise BadZipFile("is encrypted in the zip")
    file.seek(member.offset)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(_LOCAL_MAGIC):
        raise BadZipFile("is not where the zip's list of members says")
    name_length, extra_length = _LOCAL.unpack(header)[-2:]
    file.seek(name_length + extra_length, 1)
    return file.read(length)


def _unpack(member: ZipMember, data: bytes, length: int) -> bytes:
    if member.method == _STORED:
        return data[:length]
    if member.method != _DEFLATED:
        raise BadZipFile(f"is packed with method {member.method}, which is not supported")
    try:
        # One byte more than expected would show a wrong size, without unpacking a bomb.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, length + 1)
    except zlib.error as error:
        raise BadZipFile(f"its bytes in the zip are damaged ({error})") from error
