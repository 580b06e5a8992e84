"""How benchmarks measure, and what decoding alone takes for its tiles."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.bundles import resnet18_bundle
from benchmarks.ceilings import grid_of
from benchmarks.decodes import decodes_per_tile
from benchmarks.measure import ChildError, Row, interleaved, number, ratios, run_child, summarise
from benchmarks.native import open_native, touched_tiles
from benchmarks.report import Report, print_table
from benchmarks.slides import repeated_slide
from wsi_pipeline.geometry import Box, FieldOfView, Mpp, Size
from wsi_pipeline.grid import Grid
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.slides import open_slide


def test_candidates_take_turns_and_each_round_starts_with_another() -> None:
    order: list[str] = []

    def run(name: str) -> Row:
        order.append(name)
        return {"seconds": len(order)}

    found = interleaved({"a": lambda: run("a"), "b": lambda: run("b")}, 2, warm_up=1)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [{"seconds": 4}, {"seconds": 5}], "b": [{"seconds": 3}, {"seconds": 6}]}


def test_medians_spread_and_ratios_by_round() -> None:
    rows = [{"x": 1.0}, {"x": 5.0}, {"x": 2.0}]
    assert summarise(rows) == {"x": {"median": 2.0, "min": 1.0, "max": 5.0}}
    halves = [{"x": 2.0}, {"x": 5.0}, {"x": 1.0}]
    assert ratios(rows, halves, "x") == {"median": 1.0, "min": 0.5, "max": 2.0}


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (0.01234, "0.0123"), (12.3, "12.3"), (123456.7, "123,457")])
def test_numbers_as_people_read_them(value: float, text: str) -> None:
    assert number(value) == text


def test_a_childs_memory_and_its_childrens_are_counted() -> None:
    program = "import subprocess, sys, time; b = bytearray(80_000_000); {more} time.sleep(0.8); print(len(b))"
    child = 'p = subprocess.Popen([sys.executable, "-c", "import time; b = b\'x\' * 60_000_000; time.sleep(0.8)"]);'
    alone = run_child([sys.executable, "-c", program.format(more="")])
    both = run_child([sys.executable, "-c", program.format(more=child)])
    assert alone.output.strip() == "80000000"
    assert alone.seconds > 0.8
    assert 80 < alone.peak_mb < 130
    assert both.peak_mb > alone.peak_mb + 50
    assert both.peak_main_mb < 130


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(ChildError, match=r"status 3.*so it is"):
        run_child([sys.executable, "-c", "print('so it is'); raise SystemExit(3)"])


def test_a_report_says_what_it_ran_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "found.json"
    Report("nothing", Namespace(json=file, work=tmp_path)).write({"raw": {"a": [{"x": np.float32(1)}]}})
    found = json.loads(file.read_text())
    assert found["raw"] == {"a": [{"x": 1.0}]}
    assert found["hardware"]["cores"] >= 1
    assert {"date", "commit", "versions", "load_before", "load_after", "options", "command"} <= found.keys()
    assert found["options"]["work"] == str(tmp_path)
    print_table("title", ["", "one"], [["row", 1234.5]])
    assert "1,234" in capsys.readouterr().out


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([25, 50, 70]),
    st.sampled_from([32, 64, 256]),
    st.sampled_from([1.0, 4.0]),
    st.randoms(use_true_random=False),
)
def test_touched_tiles_are_those_that_pixels_of_fields_of_view_lie_in(rows, cols, view_px, tile, scale, random) -> None:
    cells = [(row, col) for row in range(rows) for col in range(cols) if random.random() < 0.5] or [(0, 0)]
    grid = Grid(
        mpp=Mpp(0.25, 0.25),
        view=FieldOfView(size_px=view_px, mpp=0.25),
        cell_um=12.5,
        extent=Box(0, 0, cols * 50, rows * 50),
        block_side=8,
        cells=np.array(cells, np.int32),
    )
    height, width = int(np.ceil(rows * 50 / scale)), int(np.ceil(cols * 50 / scale))
    wanted = np.zeros((-(-height // tile), -(-width // tile)), bool)
    for x, y in grid.windows(grid.cells):
        for py in {max(0, y), *range(max(0, y), min(y + view_px, rows * 50)), min(y + view_px, rows * 50) - 1}:
            for px in (max(0, x), *range(max(0, x), min(x + view_px, cols * 50), 7), min(x + view_px, cols * 50) - 1):
                wanted[int(py / scale) // tile, int(px / scale) // tile] = True
    assert np.array_equal(touched_tiles(grid, scale, (tile, tile), (height, width)), wanted)


def test_decoding_alone_gives_the_slides_pixels(tmp_path: Path) -> None:
    path = repeated_slide(tmp_path, Size(2000, 1500))
    grid = grid_of(path, load_bundle(resnet18_bundle(tmp_path)))
    tiles = open_native(path, grid)
    rows, cols = np.nonzero(touched_tiles(grid, 1.0, (256, 256), (1500, 2000)))
    assert len(tiles) == len(rows)
    with open_slide(path) as slide:
        for number_, (row, col) in enumerate(zip(rows, cols, strict=True)):
            box = Box(int(col) * 256, int(row) * 256, 256, 256).intersection(Box(0, 0, 2000, 1500))
            ours = tiles.decode(number_)[: box.height, : box.width].astype(int)
            assert np.abs(ours - slide.read_level(0, box)).max() <= 2  # type: ignore[attr-defined]
    assert tiles.pixels == len(tiles) * 256**2
    assert tiles.decode_all(2) > 0
    tiles.close()
    per_tile = decodes_per_tile(path, grid, len(tiles))
    assert per_tile is None or 1 <= per_tile < 3
