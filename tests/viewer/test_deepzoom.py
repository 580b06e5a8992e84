"""DeepZoom's numbering against its definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.geometry import Size
from wsi_pipeline.viewer.deepzoom import OVERLAP, TILE, DeepZoom

sides = st.integers(1, 3000)


@given(width=sides, height=sides)
def test_levels_halve_from_the_image_to_one_pixel(width, height):
    image = DeepZoom(Size(width, height))
    assert image.max_level == math.ceil(math.log2(max(width, height)))
    assert image.level_size(image.max_level) == Size(width, height)
    assert image.level_size(0) == Size(1, 1)
    for level in range(image.max_level):
        finer, coarser = image.level_size(level + 1), image.level_size(level)
        assert coarser == Size(math.ceil(finer.width / 2), math.ceil(finer.height / 2))


@given(width=sides, height=sides, back=st.integers(0, 3))
def test_tiles_cover_a_level_and_overlap_their_neighbours_by_a_pixel(width, height, back):
    image = DeepZoom(Size(width, height))
    level = max(0, image.max_level - back)
    size = image.level_size(level)
    cols, rows = math.ceil(size.width / TILE), math.ceil(size.height / TILE)
    seen = np.zeros((size.height, size.width), np.uint8)
    for row in range(rows):
        for col in range(cols):
            box = image.tile(level, col, row)
            assert box is not None
            # As OpenSeadragon places it.
            assert box.x == (0 if col == 0 else col * TILE - OVERLAP)
            assert box.y == (0 if row == 0 else row * TILE - OVERLAP)
            assert box.width >= 1
            assert box.right <= size.width
            assert box.bottom <= size.height
            seen[box.y : box.bottom, box.x : box.right] += 1
    assert seen.min() == 1
    assert (seen == 1).sum() >= (size.width - 2 * cols) * (size.height - 2 * rows)


@pytest.mark.parametrize("place", [(-1, 0, 0), (10, 0, 0), (9, 2, 0), (9, 0, -1), (9, -1, 0), (9, 0, 2), (0, 1, 0)])
def test_there_are_no_other_tiles(place):
    image = DeepZoom(Size(508, 300))
    assert image.max_level == 9
    assert image.tile(9, 1, 1) is not None
    assert image.tile(*place) is None
