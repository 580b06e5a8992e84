import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import fsspec
import imagecodecs
import numpy as np
import pytest
import tifffile
from conformance import SlideConformance, off_by, relaxed
from hypothesis import given
from hypothesis import strategies as st
from tiffs import HEIGHT, TILE, WIDTH, break_tile, picture, reductions, write_pyramid

from wsi_pipeline.errors import ResolutionError, SlideFormatError, SlideNotFoundError, SlideReadError
from wsi_pipeline.geometry import Box, Scale, Size
from wsi_pipeline.slides.tiff_reader import TiffReader

FULL = Scale(1, 1)
WHOLE = Box(0, 0, WIDTH, HEIGHT)
LOSSLESS = {"compression": "zlib", "compressionargs": {}}


class TestJpegTiles(SlideConformance):
    tolerance = 5

    @pytest.fixture
    def slide(self, tmp_path: Path) -> Iterator[TiffReader]:
        with TiffReader(write_pyramid(tmp_path / "a slide.tif")) as slide:
            assert len(slide.info.levels) == 3
            yield slide

    @pytest.fixture
    def level0(self):
        return picture()


class TestStripsOfPlainPages(SlideConformance):
    """A classic pyramid: pages of strips, nothing that says they are levels, an unusual factor."""

    @pytest.fixture
    def slide(self, tmp_path: Path) -> Iterator[TiffReader]:
        path = write_pyramid(
            tmp_path / "classic.tif", factors=(1, 5, 10), reduced=False, tile=None, rowsperstrip=16, **LOSSLESS
        )
        with TiffReader(path) as slide:
            assert [level.scale.x for level in slide.info.levels] == [1, 5, 10]
            yield slide

    @pytest.fixture
    def level0(self):
        return picture()


class TestOmeTiff(SlideConformance):
    """Levels in SubIFDs, channels in planes, resolution in the XML only."""

    @pytest.fixture
    def slide(self, tmp_path: Path) -> Iterator[TiffReader]:
        with TiffReader(write_ome(tmp_path / "slide.ome.tif")) as slide:
            assert slide.info.slide_id == "slide"
            assert slide.info.vendor == "ome"
            assert len(slide.info.levels) == 3
            assert (slide.info.mpp.x, slide.info.mpp.y) == (0.5, 0.51)
            yield slide

    @pytest.fixture
    def level0(self):
        return picture()


class TestHttp(SlideConformance):
    """A slide at an address of this very machine."""

    tolerance = 5

    @pytest.fixture
    def slide(self, tmp_path: Path) -> Iterator[TiffReader]:
        pytest.importorskip("aiohttp")
        path = write_pyramid(tmp_path / "slide.tif")
        with serve(path.read_bytes()) as port, TiffReader(f"http://127.0.0.1:{port}/slide.tif") as slide:
            assert slide.info.slide_id == "slide"
            yield slide

    @pytest.fixture
    def level0(self):
        return picture()


class serve:  # noqa: N801
    """One file over HTTP with ranges, on a free port of the loopback interface."""

    def __init__(self, content: bytes) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                if self.path != "/slide.tif":
                    self.send_error(404)
                    return
                first, last = 0, len(content) - 1
                if asked := self.headers.get("Range"):
                    start, _, end = asked.removeprefix("bytes=").partition("-")
                    first, last = int(start), min(int(end or last), last)
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
                else:
                    self.send_response(200)
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Length", str(last - first + 1))
                self.end_headers()
                if body:
                    self.wfile.write(content[first : last + 1])

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> int:
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        return self.server.server_address[1]

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def write_ome(path: Path) -> Path:
    levels = [np.moveaxis(level, 2, 0) for level in reductions(picture(), (1, 2, 4))]
    meta = {
        "axes": "CYX",
        "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 510,
        "PhysicalSizeYUnit": "nm",
    }
    with tifffile.TiffWriter(path, ome=True) as writer:
        options = {"photometric": "rgb", "planarconfig": "separate", "tile": (TILE, TILE), "compression": "zlib"}
        writer.write(levels[0], subifds=2, metadata=meta, **options)
        for level in levels[1:]:
            writer.write(level, subfiletype=1, **options)
    return path


def test_memory_addresses(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "s.tif", **LOSSLESS)
    address = f"memory://{uuid4().hex}/s.tif"
    with fsspec.open(address, "wb") as file:
        file.write(path.read_bytes())
    with TiffReader(address) as remote, TiffReader(path) as local:
        assert remote.info.fingerprint == local.info.fingerprint
        assert remote.info.levels == local.info.levels
        assert off_by(remote.read(WHOLE, FULL), picture()) == 0
        assert off_by(remote.read(WHOLE, Scale(2, 2)), local.read(WHOLE, Scale(2, 2))) == 0


def test_an_address_that_is_not_there() -> None:
    with pytest.raises(SlideNotFoundError, match="memory://nowhere"):
        TiffReader("memory://nowhere/s.tif")
    with pytest.raises(SlideNotFoundError, match="nosuchscheme"):
        TiffReader("nosuchscheme://a/s.tif")
    pytest.importorskip("aiohttp")
    with serve(b"") as port, pytest.raises(SlideNotFoundError, match="http://"):
        TiffReader(f"http://127.0.0.1:{port}/other.tif")


@pytest.mark.parametrize("kind", ["grey", "rgba", "premultiplied", "planar", "sixteen", "one strip", "pages"])
def test_kinds_of_pixels(tmp_path: Path, kind: str) -> None:
    rgb = picture()
    path, expected, options = tmp_path / "s.tif", rgb, {"metadata": None, "photometric": "rgb"}
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:, :100] = 0
    if kind == "grey":
        tifffile.imwrite(path, rgb[..., 1], photometric="minisblack", tile=(64, 64), metadata=None)
        expected = np.repeat(rgb[..., 1:2], 3, axis=2)
    elif kind in ("rgba", "premultiplied"):
        extra = "unassalpha" if kind == "rgba" else "assocalpha"
        colour = rgb if kind == "rgba" else np.where(alpha, rgb, 0)
        data = np.concatenate([colour, alpha], axis=2).astype(np.uint8)
        tifffile.imwrite(path, data, extrasamples=[extra], tile=(64, 64), **options)
        expected = np.where(alpha, rgb, 255).astype(np.uint8)
    elif kind == "planar":
        tifffile.imwrite(path, np.moveaxis(rgb, 2, 0), planarconfig="separate", rowsperstrip=17, **options)
    elif kind == "sixteen":
        tifffile.imwrite(path, rgb.astype(np.uint16) * 257, tile=(64, 64), compression="lzw", **options)
    elif kind == "one strip":
        tifffile.imwrite(path, rgb, **options)
    else:
        tifffile.imwrite(path, np.moveaxis(rgb, 2, 0), photometric="minisblack", ome=True, metadata={"axes": "CYX"})
    with TiffReader(path) as slide:
        assert slide.info.size == Size(WIDTH, HEIGHT)
        assert off_by(slide.read(WHOLE, FULL), expected) == 0
        assert off_by(slide.read(Box(90, 130, 50, 40), FULL), expected[130:170, 90:140]) == 0


def test_tiles_left_out_are_white(tmp_path: Path) -> None:
    tiles = iter([np.full((TILE, TILE, 3), 100, np.uint8), None, None, np.full((TILE, TILE, 3), 50, np.uint8)])
    tifffile.imwrite(
        tmp_path / "sparse.tif", tiles, shape=(256, 256, 3), dtype=np.uint8, tile=(TILE, TILE), photometric="rgb",
        compression="zlib", metadata=None,
    )  # fmt: skip
    with TiffReader(tmp_path / "sparse.tif") as slide:
        pixels = slide.read(Box(0, 0, 256, 256), FULL)
    assert pixels[10, 10].tolist() == [100] * 3
    assert pixels[10, 200].tolist() == [255] * 3


@pytest.mark.parametrize(
    ("data", "options", "why"),
    [
        (np.zeros((64, 64, 3), np.float32), {"photometric": "rgb"}, "float32"),
        (np.zeros((5, 64, 64), np.uint8), {"photometric": "minisblack"}, "5 pages|axes"),
        (np.zeros((64, 64, 4), np.uint8), {"photometric": "separated"}, "SEPARATED"),
        (
            np.zeros((64, 64), np.uint8),
            {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)},
            "PALETTE",
        ),
    ],
    ids=["float", "stack", "cmyk", "palette"],
)
def test_what_is_no_rgb_is_refused(tmp_path: Path, data: np.ndarray, options: dict, why: str) -> None:
    tifffile.imwrite(tmp_path / "s.tif", data, **options)
    with pytest.raises(SlideFormatError, match=why):
        TiffReader(tmp_path / "s.tif")


def test_one_corrupt_tile_costs_only_itself(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "broken.svs", aperio=True, factors=(1,))
    break_tile(path, 8)  # the third tile of the second row
    with TiffReader(path) as slide:
        elsewhere = Box(10, 10, 100, 100)
        for _ in range(2):
            with pytest.raises(SlideReadError, match=r"broken\.svs.*20 x 20 px at \(266, 138\)"):
                slide.read(Box(2 * TILE + 10, TILE + 10, 20, 20), FULL)
            assert off_by(slide.read(elsewhere, FULL), picture()[10:110, 10:110]) <= 5
        thumbnail = slide.thumbnail(175)
        assert thumbnail.unreadable[32 + 8, 64 + 8]
        assert not thumbnail.unreadable[-1].any()


def test_a_truncated_file(tmp_path: Path) -> None:
    whole = write_pyramid(tmp_path / "whole.tif", factors=(1,))
    content = whole.read_bytes()
    (tmp_path / "half.tif").write_bytes(content[: len(content) // 2])
    # The directory of the pages stands before the pixels here: it opens, and only the lost part fails.
    with TiffReader(tmp_path / "half.tif") as slide:
        slide.read(Box(0, 0, 50, 50), FULL)
        with pytest.raises(SlideReadError, match=r"half\.tif"):
            slide.read(Box(WIDTH - 50, HEIGHT - 50, 50, 50), FULL)
    (tmp_path / "head.tif").write_bytes(content[:60])
    with pytest.raises(SlideFormatError, match=r"head\.tif"):
        TiffReader(tmp_path / "head.tif")


def test_garbage_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(3).integers(0, 256, 5000).astype(np.uint8).tobytes()
    for n, content in enumerate([noise, b"II*\0" + noise, b"MM\0+" + noise, b"II*\0", b"x"]):
        path = tmp_path / f"{n}.tif"
        path.write_bytes(content)
        with pytest.raises(SlideFormatError, match=rf"{n}\.tif"):
            TiffReader(path)


def test_a_picture_in_one_enormous_piece_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "s.tif", picture(), photometric="rgb")
    monkeypatch.setattr("wsi_pipeline.slides.tiff_pixels.MAX_SEGMENT_BYTES", 100_000)
    with pytest.raises(SlideFormatError, match="tiled TIFF"):
        TiffReader(tmp_path / "s.tif")


def test_tiles_that_stick_out_are_kept_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_pipeline.slides.tiff_pixels.CACHE_BYTES", 4 * TILE * TILE * 3)
    with TiffReader(write_pyramid(tmp_path / "s.tif")) as slide:
        slide.read(WHOLE, FULL)
        assert not slide._segments._kept, "nothing sticks out over the whole slide"
        slide.read(Box(5, 5, WIDTH - 10, HEIGHT - 10), FULL)
        assert len(slide._segments._kept) == 4
        assert slide._segments._bytes == sum(kept.nbytes for kept in slide._segments._kept.values())


def test_a_tile_is_decoded_once_for_boxes_side_by_side(tmp_path: Path) -> None:
    with TiffReader(write_pyramid(tmp_path / "s.tif", factors=(1,))) as slide:
        tiles = -(-WIDTH // TILE) * -(-HEIGHT // TILE)
        for y in range(0, HEIGHT, 150):
            for x in range(0, WIDTH, 90):
                slide.read(Box(x, y, 90, 150), FULL)
        assert slide.decodes == tiles


def neighbours(width: int, height: int, side: int, margin: int) -> list[Box]:
    """Boxes row by row, as blocks of cells are read, each with `margin` px around for the fields of view."""
    return [
        Box(x - margin, y - margin, side + 2 * margin, side + 2 * margin)
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]


@pytest.mark.parametrize(("tile", "margin"), [(240, 0), (256, 0), (240, 23)])
def test_two_readers_of_a_slide_decode_hardly_a_tile_twice(tmp_path: Path, tile: int, margin: int) -> None:
    """Each reads its run of neighbouring blocks of 64 x 64 cells of 50 px."""
    width, height = 12_900, 10_100
    grey = imagecodecs.jpeg8_encode(np.full((tile, tile), 200, np.uint8))
    tiles = -(-width // tile) * -(-height // tile)
    tifffile.imwrite(
        tmp_path / "s.tif", iter([grey] * tiles), shape=(height, width), dtype=np.uint8, tile=(tile, tile),
        photometric="minisblack", compression="jpeg", metadata=None,
    )  # fmt: skip
    boxes = neighbours(width, height, 64 * 50, margin)
    decodes = 0
    for part in (boxes[: len(boxes) // 2], boxes[len(boxes) // 2 :]):
        with TiffReader(tmp_path / "s.tif") as slide:
            for box in part:
                slide.read(box, FULL)
            decodes += slide.decodes
    assert tiles <= decodes <= 1.1 * tiles


@pytest.mark.parametrize("threads", [1, 3])
def test_pixels_do_not_depend_on_the_order_of_reads(tmp_path: Path, threads: int) -> None:
    path = write_pyramid(tmp_path / "s.tif", **LOSSLESS)
    levels = reductions(picture(), (1, 2, 4))
    with TiffReader(path, threads=threads) as slide:

        @relaxed
        @given(st.lists(st.tuples(st.integers(0, 2), *[st.floats(0, 1)] * 4), min_size=1, max_size=6), st.data())
        def check(reads: list[tuple[int, float, float, float, float]], data: st.DataObject) -> None:
            for level, *parts in reads:
                height, width = levels[level].shape[:2]
                x, y = int(parts[0] * (width - 1)), int(parts[1] * (height - 1))
                box = Box(x, y, 1 + int(parts[2] * (width - x - 1)), 1 + int(parts[3] * (height - y - 1)))
                expected = levels[level][box.y : box.bottom, box.x : box.right]
                assert off_by(slide.read_level(level, box), expected) == 0
            if data.draw(st.booleans()):
                assert slide.thumbnail(50).pixels.std() > 0

        check()


def test_threads_see_the_same_and_survive_a_corrupt_tile(tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "s.svs", aperio=True, factors=(1,))
    with TiffReader(path) as one, TiffReader(path, threads=4) as four:
        assert off_by(one.read(WHOLE, FULL), four.read(WHOLE, FULL)) == 0
        assert one.decodes == four.decodes
    break_tile(path, 8)
    with TiffReader(path, threads=4) as slide:
        for _ in range(3):
            with pytest.raises(SlideReadError):
                slide.read(WHOLE, FULL)
        assert off_by(slide.read(Box(10, 10, 100, 100), FULL), picture()[10:110, 10:110]) <= 5


def test_a_channel_left_out_is_white_and_the_others_stay(tmp_path: Path) -> None:
    """One of three planes lacks a tile, whatever the order they are decoded in."""
    planes = np.full((3, 256, 256), 40, np.uint8)
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", tile=(128, 128), compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages.first
        counts = list(page.databytecounts)
        counts[1] = 0
        page.tags["TileByteCounts"].overwrite(counts)
    with TiffReader(path) as slide:
        for _ in range(2):
            pixels = slide.read(Box(10, 10, 236, 100), FULL)
            assert (pixels[:, :110] == 40).all()
            assert (pixels[:, 130:] == (255, 40, 40)).all()


def test_files_that_an_ome_tiff_names_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planes = "".join(
        f'<TiffData FirstZ="{z}" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{uuid4()}</UUID></TiffData>'
        for z, name in enumerate(("named.ome.tif", "../other.tif"))
    )
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{WIDTH}" SizeY="{HEIGHT}" SizeC="3" '
        f'SizeZ="2" SizeT="1"><Channel ID="Channel:0" SamplesPerPixel="3"/>{planes}</Pixels></Image></OME>'
    )
    folder = tmp_path / "slides"
    folder.mkdir()
    options = {"photometric": "rgb", "tile": (TILE, TILE), "compression": "zlib", "metadata": None}
    tifffile.imwrite(folder / "named.ome.tif", picture(), description=xml, **options)
    tifffile.imwrite(tmp_path / "other.tif", 255 - picture(), **options)
    opened, open_tiff = [], tifffile.TiffFile.__init__

    def note(self: tifffile.TiffFile, file: object, *given: object, **options: object) -> None:
        opened.append(file)
        open_tiff(self, file, *given, **options)

    monkeypatch.setattr(tifffile.TiffFile, "__init__", note)
    with TiffReader(folder / "named.ome.tif") as slide:
        assert off_by(slide.read(WHOLE, FULL), picture()) == 0
    assert len(opened) == 1


def test_resolution(tmp_path: Path) -> None:
    with TiffReader(write_pyramid(tmp_path / "no.tif", mpp=None)) as slide:
        assert (slide.info.mpp, slide.info.mpp_source) == (None, "missing")
    with TiffReader(write_pyramid(tmp_path / "silly.tif", mpp=896)) as slide:
        assert slide.info.mpp is None
        assert "896 µm/px" in slide.info.warnings[0]
    with TiffReader(write_pyramid(tmp_path / "a.svs", aperio=True, mpp=None)) as slide:
        assert slide.info.vendor == "aperio"
        assert slide.info.mpp.x == 0.25
    with pytest.raises(ResolutionError, match=r"no\.tif: 1000 µm/px"):
        TiffReader(tmp_path / "no.tif", mpp=1000)
