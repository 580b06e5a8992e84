"""Masks made wider, narrower and cleaner, against plain definitions and scipy."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from wsi_pipeline.masks import distance_to, drop_small, fill_small, grow, label, nearest_piece, shrink

CORNERS = np.ones((3, 3), np.int8)


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.bool_]:
    """Speckle and lumps of any share, in pictures down to a pixel."""
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    noise = np.random.default_rng(draw(st.integers(0, 1000))).random(shape)
    if draw(st.booleans()):
        noise = ndimage.gaussian_filter(noise, 2)
    return noise < np.quantile(noise, draw(st.floats(0, 1)))


def distances(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[height, width, pixels of the mask]."""
    rows, cols = np.mgrid[: mask.shape[0], : mask.shape[1]]
    places = np.argwhere(mask)
    return np.hypot(rows[..., None] - places[:, 0], cols[..., None] - places[:, 1])


@settings(max_examples=60, deadline=None)
@given(mask=masks(), radius=st.one_of(st.floats(0, 20), st.integers(0, 20)))
def test_a_grown_mask_holds_all_within_the_radius(mask, radius):
    assume(mask.any())
    distance = distances(mask).min(-1)
    assert np.allclose(distance_to(mask), distance)
    # Just on the rim of a fractional radius, single precision may say either.
    sure = np.isclose(radius, round(radius)) | ~np.isclose(distance, radius, rtol=1e-6)
    assert np.array_equal(grow(mask, radius)[sure], (distance <= radius)[sure])


@given(radius=st.floats(0, 10))
def test_nothing_grows_to_nothing_and_all_shrinks_to_all(radius):
    assert not grow(np.zeros((3, 5), np.bool_), radius).any()
    assert shrink(np.ones((3, 5), np.bool_), radius).all()


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_empty_pictures_have_empty_masks(shape):
    empty = np.zeros(shape, np.bool_)
    for corners in (False, True):
        pieces, sizes = label(empty, corners=corners)
        assert (pieces.shape, sizes.tolist()) == (shape, [0])
    assert distance_to(empty).shape == nearest_piece(empty).shape == shape
    for found in (grow(empty, 2), shrink(empty, 2), drop_small(empty, 3), fill_small(empty, 3)):
        assert found.shape == shape


@given(mask=masks(), radius=st.floats(0, 10))
def test_a_shrunk_mask_holds_what_is_farther_from_the_rest(mask, radius):
    assume(not mask.all())
    distance = distances(~mask).min(-1)
    sure = ~np.isclose(distance, radius, rtol=1e-6)
    assert np.array_equal(shrink(mask, radius)[sure], (distance > radius)[sure] & mask[sure])


@settings(max_examples=60, deadline=None)
@given(mask=masks(), corners=st.booleans())
def test_pieces_are_numbered_from_the_top_left_and_counted(mask, corners):
    pieces, sizes = label(mask, corners=corners)
    expected, count = ndimage.label(mask, CORNERS if corners else None)
    assert np.array_equal(pieces > 0, mask)
    assert np.array_equal(sizes, np.bincount(pieces.ravel(), minlength=count + 1))
    assert len(np.unique(np.stack([pieces, expected], -1)[mask], axis=0)) == count  # the same pieces
    if not corners:  # on this order rests the numbering of regions of one size
        assert np.array_equal(pieces, expected)


@settings(max_examples=60, deadline=None)
@given(mask=masks())
def test_the_nearest_piece_is_nearest_but_for_rounding(mask):
    assume(mask.any())
    nearest, distance = nearest_piece(mask), distances(mask)
    of_piece = nearest[mask][None, None] == nearest[..., None]
    assert (nearest > 0).all()
    assert (np.where(of_piece, distance, np.inf).min(-1) <= 1.05 * distance.min(-1)).all()
    pieces, count = ndimage.label(mask, CORNERS)
    assert len(np.unique(np.stack([pieces, nearest], -1)[mask], axis=0)) == count


@settings(max_examples=60, deadline=None)
@given(mask=masks(), least=st.integers(0, 60))
def test_small_pieces_go_and_the_others_stay_as_they_are(mask, least):
    kept = drop_small(mask, least)
    pieces, _ = ndimage.label(mask, CORNERS)
    large = np.bincount(pieces.ravel()) >= least
    assert np.array_equal(kept, mask & large[pieces])


@settings(max_examples=60, deadline=None)
@given(mask=masks(), least=st.integers(0, 60))
def test_small_holes_are_filled_where_the_border_is_tissue(mask, least):
    framed = np.pad(mask, 1, constant_values=True)
    holes, _ = ndimage.label(~framed)
    small = np.bincount(holes.ravel()) < least
    assert np.array_equal(fill_small(framed, least), framed | small[holes])
