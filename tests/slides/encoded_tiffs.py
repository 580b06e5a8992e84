"""TIFF slides whose tiles are encoded here, one by one, as scanners encode them."""

import io
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from tiffs import APERIO, TILE, picture

YCBCR_422 = {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 1)}

Encoder = Callable[[NDArray[np.uint8]], bytes]


def textured(width: int = 700, height: int = 530) -> NDArray[np.uint8]:
    """The made picture with fine colour noise: what is lost in half resolution of colour shows."""
    noise = np.random.default_rng(5).integers(-40, 40, (height, width, 3))
    return np.clip(picture(width, height) + noise, 0, 255).astype(np.uint8)


def jpeg(subsampling: int) -> Encoder:
    """YCbCr with a JFIF header: 0 is 4:4:4, 1 is 4:2:2, 2 is 4:2:0."""

    def encode(tile: NDArray[np.uint8]) -> bytes:
        file = io.BytesIO()
        Image.fromarray(tile).save(file, "JPEG", quality=90, subsampling=subsampling)
        return file.getvalue()

    return encode


def jpeg_rgb(tile: NDArray[np.uint8]) -> bytes:
    """RGB stored as it is, as Aperio does."""
    return bytes(imagecodecs.jpeg8_encode(tile, level=90, outcolorspace="rgb"))


def jpeg_2000(tile: NDArray[np.uint8]) -> bytes:
    """A JPEG 2000 codestream of RGB."""
    return bytes(imagecodecs.jpeg2k_encode(tile, level=60, codecformat="j2k"))


def jpeg_2000_ycbcr(tile: NDArray[np.uint8]) -> bytes:
    """A JPEG 2000 codestream whose channels are Y, Cb and Cr."""
    ycbcr = np.asarray(Image.fromarray(tile).convert("YCbCr"))
    return bytes(imagecodecs.jpeg2k_encode(ycbcr, level=60, codecformat="j2k", mct=False))


def write_encoded(
    path: Path,
    encode: Encoder | None,
    *,
    base: NDArray[np.uint8] | None = None,
    tile: int = TILE,
    factors: Sequence[int] = (1, 2, 4),
    aperio: bool = False,
    shared_tables: bool = False,
    missing: Collection[tuple[int, int]] = (),
    retag: int | None = None,
    descriptions: Sequence[str] | None = None,
    padded: bool = False,
    **options: Any,
) -> Path:
    """A pyramid of every n-th pixel.

    Args:
        path: Where.
        encode: Makes the bytes of a tile; None where `options` name a compression that tifffile does itself.
        base: Level 0.
        tile: Side of the tiles.
        factors: Of the levels.
        aperio: As SVS.
        shared_tables: JPEG tables in the page's tag and not in the tiles.
        missing: (level, number) of the tiles that are left out.
        retag: Photometric interpretation written over tifffile's tag, which knows JPEG as YCbCr only.
        descriptions: One for each level.
        padded: The pages' sizes are those of their whole tiles, as in Philips files.
        options: For `tifffile.TiffWriter.write`.
    """
    base = textured() if base is None else base
    descriptions = descriptions or [APERIO if aperio else ""]
    with tifffile.TiffWriter(path) as writer:
        for n, factor in enumerate(factors):
            level = base[::factor, ::factor]
            tiles = _tiles(level, tile)
            data: list[Any] = [encode(part) for part in tiles] if encode else tiles
            tables = []
            if shared_tables:
                table, data = _split_tables(data)
                tables = [(347, 7, len(table), table, True)]
            data = [b"" if (n, number) in missing else part for number, part in enumerate(data)]
            height, width = (-(-side // tile) * tile if padded else side for side in level.shape[:2])
            writer.write(
                iter(data),
                shape=(height, width, *level.shape[2:]),
                dtype=np.uint8,
                tile=(tile, tile),
                metadata=None,
                description=descriptions[n] if n < len(descriptions) else None,
                subfiletype=int(n > 0 and not aperio),
                extratags=tables,
                **{"software": False} | options,
            )
    if retag is not None:
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            for page in tiff.pages:
                page.tags["PhotometricInterpretation"].overwrite(retag)
    return path


def write_philips(path: Path, base: NDArray[np.uint8], missing: Collection[tuple[int, int]] = ()) -> Path:
    """A pyramid as Philips' scanners export it: sizes in whole tiles, resolution in XML."""
    factors, um = (1, 2, 4), 0.227
    spacings = [
        '<Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">'
        f"&quot;{um * factor / 1e3:.9f}&quot; &quot;{um * 1.01 * factor / 1e3:.9f}&quot;</Attribute>"
        for factor in factors
    ]
    levels = "".join(f'<DataObject ObjectType="PixelDataRepresentation">{each}</DataObject>' for each in spacings)
    xml = (
        '<?xml version="1.0" encoding="UTF-8" ?>\n<DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" PMSVR="IDataObjectArray"><Array>'
        '<DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" Element="0x1004" PMSVR="IString">WSI</Attribute>'
        f"{spacings[0]}"
        '<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" Element="0x8B01" '
        f'PMSVR="IDataObjectArray"><Array>{levels}</Array></Attribute>'
        "</DataObject></Array></Attribute></DataObject>"
    )
    return write_encoded(
        path, jpeg(1), base=base, factors=factors, missing=missing, descriptions=[xml], padded=True,
        software="Philips DP v1.0", **YCBCR_422,
    )  # fmt: skip


def _tiles(level: NDArray[np.uint8], side: int) -> list[NDArray[np.uint8]]:
    margins = [(0, -level.shape[0] % side), (0, -level.shape[1] % side), (0, 0)][: level.ndim]
    whole = np.pad(level, margins, mode="edge")
    return [
        np.ascontiguousarray(whole[y : y + side, x : x + side])
        for y in range(0, whole.shape[0], side)
        for x in range(0, whole.shape[1], side)
    ]


def _split_tables(jpegs: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """The quantisation and Huffman tables that all share, and the pictures without them and without headers."""
    tables, pictures = b"", []
    for data in jpegs:
        position, tables, rest = 2, b"", b""
        while True:
            marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
            part = data[position : position + 2 + length]
            position += 2 + length
            if marker in (0xDB, 0xC4):
                tables += part
            elif marker not in (0xE0, 0xEE):
                rest += part
            if marker == 0xDA:
                break
        pictures.append(b"\xff\xd8" + rest + data[position:])
    return b"\xff\xd8" + tables + b"\xff\xd9", pictures
