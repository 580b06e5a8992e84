import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from labelled_patches import OnPaper

from wsi_pipeline.datasets import fit_size, load_images
from wsi_pipeline.geometry import Size

SIDE = st.integers(1, 12)


@given(SIDE, SIDE, SIDE, SIDE)
def test_a_patch_is_cut_to_its_middle_and_continued_in_white(height, width, wanted_height, wanted_width):
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3) % 200
    found = fit_size(pixels, Size(wanted_width, wanted_height))
    assert found.shape == (wanted_height, wanted_width, 3)
    rows, columns = min(height, wanted_height), min(width, wanted_width)
    top, left = (height - rows) // 2, (width - columns) // 2
    assert (found[:rows, :columns] == pixels[top : top + rows, left : left + columns]).all()
    assert (found[rows:] == 255).all()
    assert (found[:, columns:] == 255).all()


def test_images_come_in_the_wanted_order_and_size():
    dataset = OnPaper([("a", 0), ("b", 1), ("c", 0)])
    assert load_images(dataset)[:, 0, 0, 0].tolist() == [0, 1, 2]
    some = load_images(dataset, np.array([2, 0]), size=Size(20, 60))
    assert some.shape == (2, 60, 20, 3)
    assert some[:, 0, 0, 0].tolist() == [2, 0]
    assert some[:, 55, 0, 0].tolist() == [255, 255]
    assert load_images(dataset, []).shape == (0, 50, 50, 3)
