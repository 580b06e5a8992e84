import numpy as np

from wsi_pipeline.mosaic import mosaics


def test_a_case_is_put_together_at_its_places():
    positions = np.array([[100, 50], [150, 50], [100, 150], [0, 0]])
    small, large = mosaics(positions, np.array(["b", "b", "b", "a"]), 50)
    assert small.rows.tolist() == [3]
    assert large.rows.tolist() == [0, 1, 2]
    assert small.lay_out(np.array([True]), empty=False).tolist() == [[True]]
    picture = large.lay_out(np.array([0.9, 0.2, 0.4], np.float32), empty=np.nan)
    expected = np.array([[0.9, 0.2], [np.nan, np.nan], [0.4, np.nan]], np.float32)
    assert picture.dtype == np.float32
    assert np.array_equal(picture, expected, equal_nan=True)
    assert np.array_equal(picture[large.cells], np.array([0.9, 0.2, 0.4], np.float32))


def test_each_patch_may_be_a_picture():
    (mosaic,) = mosaics(np.array([[0, 0], [50, 50]]), np.array([7, 7]), 50)
    tiles = mosaic.lay_out(np.arange(8, dtype=np.uint8).reshape(2, 2, 2), empty=255)
    assert tiles.tolist() == [
        [[[0, 1], [2, 3]], [[255, 255], [255, 255]]],
        [[[255, 255], [255, 255]], [[4, 5], [6, 7]]],
    ]


def test_no_patches_are_no_case():
    assert list(mosaics(np.empty((0, 2), np.int64), np.array([], np.str_), 50)) == []
