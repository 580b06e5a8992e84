import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from wsi_pipeline.slides.positional import PositionalFile

CONTENT = np.random.default_rng(2).integers(0, 256, 50_000).astype(np.uint8).tobytes()


@pytest.mark.parametrize("local", [True, False])
def test_threads_read_what_stands_where_they_ask(tmp_path: Path, local: bool) -> None:
    (tmp_path / "f").write_bytes(CONTENT)
    source: BinaryIO = (tmp_path / "f").open("rb") if local else io.BytesIO(CONTENT)
    starts = np.random.default_rng(3).integers(0, 49_000, 400).tolist()
    with source, ThreadPoolExecutor(4) as pool:
        file = PositionalFile(source)
        assert list(pool.map(lambda start: file.read(start, 700), starts)) == [
            CONTENT[start : start + 700] for start in starts
        ]
        assert file.read(49_900, 700) == CONTENT[49_900:]
        assert file.read(60_000, 5) == b""
