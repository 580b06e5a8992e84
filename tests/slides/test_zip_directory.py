"""Against `zipfile` as the oracle."""

import io
import zipfile
from zipfile import ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, BadZipFile, ZipFile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.slides.zip_directory import list_members, read_head, read_member

NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="\\:"), min_size=1, max_size=12)


def make(files: dict[str, bytes], method: int = ZIP_DEFLATED, comment: bytes = b"", before: bytes = b"") -> io.BytesIO:
    buffer = io.BytesIO()
    buffer.write(before)
    with ZipFile(buffer, "a", method) as archive:
        archive.comment = comment
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer


@settings(max_examples=60, deadline=None, database=None)
@given(
    files=st.dictionaries(NAMES, st.binary(max_size=300), max_size=6),
    method=st.sampled_from([ZIP_STORED, ZIP_DEFLATED]),
    comment=st.sampled_from([b"", b"a comment"]),
    before=st.sampled_from([b"", b"#!/bin/sh\n"]),
)
def test_lists_and_reads_what_zipfile_does(files, method, comment, before) -> None:
    buffer = make(files, method, comment, before)
    members = list(list_members(buffer))
    with ZipFile(buffer) as oracle:
        expected = [info for info in oracle.infolist() if not info.is_dir()]
        assert [(m.name, m.crc, m.size) for m in members] == [(i.filename, i.CRC, i.file_size) for i in expected]
        for member in members:
            content = oracle.read(member.name)
            assert read_member(buffer, member) == content
            assert read_head(buffer, member, 24) == content[:24]


def test_more_members_than_the_old_format_counts() -> None:
    buffer = make({f"{n}/a": b"" for n in range(66_000)}, ZIP_STORED)
    assert sum(1 for _ in list_members(buffer)) == 66_000
    assert [member.name for member in list_members(buffer, "65999")] == ["65999/a"]


def test_offsets_over_four_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    buffer = make({"a": b"1" * 50, "b": b"2" * 300, "c": b"3" * 10}, ZIP_STORED)
    assert [read_member(buffer, member)[:1] for member in list_members(buffer)] == [b"1", b"2", b"3"]


def test_names_of_old_zips_are_code_page_437() -> None:
    buffer = make({"ab.png": b"x"}, ZIP_STORED)
    data = io.BytesIO(buffer.getvalue().replace(b"ab.png", b"\x81b.png"))
    assert [member.name for member in list_members(data, "üb")] == ["üb.png"]


@pytest.mark.parametrize("cut", [1, 10, 21, 30, 70, 100])
def test_a_cut_off_zip_is_an_error(cut: int) -> None:
    data = make({"a": b"1" * 50, "b": b"2" * 50}).getvalue()
    with pytest.raises(BadZipFile):
        list(list_members(io.BytesIO(data[:-cut])))


def test_no_zip_is_an_error() -> None:
    for data in (b"", b"PK\x05\x06", b"garbage" * 40, b"PK\x05\x06" + b"\xff" * 18):
        with pytest.raises(BadZipFile):
            list(list_members(io.BytesIO(data)))


def test_damaged_bytes_are_an_error_of_their_member_only() -> None:
    data = bytearray(make({"a": bytes(range(200)), "b": b"well"}, ZIP_STORED).getvalue())
    data[60] ^= 0xFF
    buffer = io.BytesIO(data)
    broken, whole = list_members(buffer)
    with pytest.raises(BadZipFile, match="damaged"):
        read_member(buffer, broken)
    assert read_member(buffer, whole) == b"well"


def test_a_member_larger_than_it_says_is_not_unpacked() -> None:
    data = bytearray(make({"a": b"0" * 5_000_000}).getvalue())
    at = data.rfind(b"PK\x01\x02") + 24
    data[at : at + 4] = (10).to_bytes(4, "little")
    buffer = io.BytesIO(data)
    (member,) = list_members(buffer)
    assert member.size == 10
    with pytest.raises(BadZipFile, match="damaged"):
        read_member(buffer, member)


def test_unknown_compression_and_passwords_are_named() -> None:
    buffer = make({"a": b"1" * 50}, ZIP_LZMA)
    (member,) = list_members(buffer)
    with pytest.raises(BadZipFile, match="method 14"):
        read_member(buffer, member)
    data = bytearray(make({"a": b"1" * 50}).getvalue())
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    (member,) = list_members(io.BytesIO(data))
    with pytest.raises(BadZipFile, match="encrypted"):
        read_member(io.BytesIO(data), member)
