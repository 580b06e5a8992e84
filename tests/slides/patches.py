"""IDC patches made for the tests: a case with edges, holes and labels whose pixels are known."""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 531, 401
"""Eleven columns, the last 31 px wide, and nine rows, the last 1 px high."""
HOLE, CORNER = (5, 4), (0, 0)
"""(col, row) of positions without a patch: one closed in, one open to the outside."""

Files = dict[str, bytes]
"""Contents by path, forward slashes."""


def png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def name(col: int, row: int, label: int, case: str = "8863") -> str:
    return f"{case}/{label}/{case}_idx5_x{col * 50 + 1}_y{row * 50 + 1}_class{label}.png"


def label_of(col: int, row: int) -> int:
    return int(3 <= col <= 7 and 2 <= row <= 5)


def picture() -> NDArray[np.uint8]:
    """[HEIGHT, WIDTH, 3]: waves, never white, white where no patch is."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([150 + 70 * np.sin(x / 23), 120 + 60 * np.cos(y / 17), 40 + (x + y) % 150], axis=-1)
    pixels = pixels.round().astype(np.uint8)
    for col, row in (HOLE, CORNER):
        pixels[row * 50 : row * 50 + 50, col * 50 : col * 50 + 50] = 255
    return pixels


def case_files(case: str = "8863") -> Files:
    """The patches of a case."""
    pixels, files = picture(), {}
    for row in range(-(-HEIGHT // 50)):
        for col in range(-(-WIDTH // 50)):
            if (col, row) not in (HOLE, CORNER):
                cut = pixels[row * 50 : row * 50 + 50, col * 50 : col * 50 + 50]
                files[name(col, row, label_of(col, row), case)] = png(cut)
    return files


def small_case(case: str = "8863", columns: int = 3, shade: int = 90) -> Files:
    """One row of patches of one shade each; the middle one has IDC."""
    return {
        name(col, 0, int(col == 1), case): png(np.full((50, 50, 3), shade + col, np.uint8)) for col in range(columns)
    }


def write_folder(root: Path, files: Files) -> Path:
    for member, content in files.items():
        path = root / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def write_zip(path: Path, files: Files, *, folders: Iterable[str] = (), method: int = ZIP_DEFLATED) -> Path:
    with ZipFile(path, "w", method) as archive:
        for folder in folders:
            archive.mkdir(folder)
        for member, content in files.items():
            archive.writestr(member, content)
    return path
