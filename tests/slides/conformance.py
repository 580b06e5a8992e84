"""What every reader must do. Subclass `SlideConformance` and give it a `slide` fixture."""

import multiprocessing
import pickle
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideReadError
from wsi_pipeline.geometry import Box, Scale
from wsi_pipeline.slides import Slide, open_slide, raster

SCALES = [Scale(s, s) for s in (0.6, 1.0, 1.0004, 1.1, 2.0, 2.5, 3.0, 3.7, 4.0, 7.3)] + [Scale(2.2, 1.7)]

relaxed = settings(
    max_examples=20,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


def off_by(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    """The largest difference of two pictures of one shape."""
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max(initial=0))


def whole(slide: Slide, scale: Scale) -> Box:
    """The raster at `scale`, with a margin of a few pixels."""
    size = slide.info.size
    return Box(-3, -2, int(size.width / scale.x) + 8, int(size.height / scale.y) + 7)


def _read_elsewhere(path: str, reader: str, box: Box, scale: Scale) -> NDArray[np.uint8]:
    with open_slide(path, reader=reader) as slide:
        return slide.read(box, scale)


class SlideConformance:
    """Subclass it as ``Test...`` and override `slide`; override `level0` where the true pixels are known."""

    tolerance = 0
    """Largest difference of a read pixel from the true one in `level0`."""

    @pytest.fixture
    def slide(self) -> Iterator[Slide]:
        """An open slide of about 500 px, with something to see in it, closed afterwards."""
        raise NotImplementedError

    @pytest.fixture
    def level0(self) -> NDArray[np.uint8] | None:
        """[height, width, 3]: the true pixels of level 0; None where they are not known."""
        return None

    def test_info_is_coherent(self, slide: Slide) -> None:
        info = slide.info
        assert info.levels[0].size == info.size
        assert (info.levels[0].scale.x, info.levels[0].scale.y) == (1, 1)
        scales = [level.scale.x for level in info.levels]
        assert scales == sorted(set(scales))
        for level in info.levels:
            assert level.size.width * level.scale.x == pytest.approx(info.size.width, abs=level.scale.x)
            assert level.size.height * level.scale.y == pytest.approx(info.size.height, abs=level.scale.y)
        whole_slide = Box(0, 0, info.size.width, info.size.height)
        assert info.bounds.intersection(whole_slide) == info.bounds
        assert (info.mpp is None) == (info.mpp_source == "missing")
        assert len(bytes.fromhex(info.fingerprint)) == 32
        assert info.slide_id
        assert pickle.loads(pickle.dumps(info)) == info

    def test_reads_the_true_pixels(self, slide: Slide, level0: NDArray[np.uint8] | None) -> None:
        if level0 is None:
            pytest.skip("the true pixels are not known")
        size = slide.info.size
        assert level0.shape == (size.height, size.width, 3)
        assert off_by(slide.read(Box(0, 0, size.width, size.height), Scale(1, 1)), level0) <= self.tolerance

    @pytest.mark.parametrize("scale", SCALES, ids=str)
    def test_a_pixel_is_the_same_in_every_box(self, slide: Slide, scale: Scale) -> None:
        outer = whole(slide, scale)
        reference = slide.read(outer, scale)
        assert reference.std() > 1, "a slide with nothing on it tests nothing"

        @relaxed
        @given(data=st.data())
        def check(data: st.DataObject) -> None:
            x, y = data.draw(st.integers(0, outer.width - 1)), data.draw(st.integers(0, outer.height - 1))
            width, height = data.draw(st.integers(1, outer.width - x)), data.draw(st.integers(1, outer.height - y))
            part = slide.read(Box(outer.x + x, outer.y + y, width, height), scale)
            assert off_by(part, reference[y : y + height, x : x + width]) <= 1

        check()

    @pytest.mark.parametrize("scale", [Scale(1, 1), Scale(2, 2), Scale(0.5, 0.5), Scale(3.3, 3.3)], ids=str)
    def test_shape_and_dtype(self, slide: Slide, scale: Scale) -> None:
        for box in (Box(0, 0, 1, 1), Box(5, 7, 33, 12), Box(-4, -4, 9, 5), Box(10, 10, 0, 5), Box(3, 3, 4, 0)):
            pixels = slide.read(box, scale)
            assert pixels.shape == (box.height, box.width, 3)
            assert pixels.dtype == np.uint8

    @pytest.mark.parametrize("scale", [Scale(1, 1), Scale(2, 2), Scale(5.3, 5.3)], ids=str)
    def test_outside_is_white(self, slide: Slide, scale: Scale) -> None:
        size = slide.info.size
        right, below = int(size.width / scale.x) + 2, int(size.height / scale.y) + 2
        for box in (Box(-20, 3, 20, 10), Box(3, -20, 10, 20), Box(right, 0, 9, 9), Box(0, below, 9, 9)):
            assert slide.read(box, scale).min() == 255
        over_corner = slide.read(Box(-5, -6, 15, 16), scale)
        assert over_corner[:6].min() == 255
        assert over_corner[:, :5].min() == 255

    def test_mean_colour_survives_shrinking(self, slide: Slide) -> None:
        # Boxes that cover the same level-0 pixels: a shift of the raster would show at the edges of things.
        fine = slide.read(Box(0, 0, 240, 240), Scale(1, 1)).reshape(24, 10, 24, 10, 3).mean(axis=(1, 3))
        coarse = slide.read(Box(0, 0, 24, 24), Scale(10, 10))
        assert np.abs(fine - coarse).mean() < 3

    def test_thumbnail_is_the_whole_slide(self, slide: Slide) -> None:
        size = slide.info.size
        for max_px in (50, 173):
            thumbnail = slide.thumbnail(max_px)
            height, width = thumbnail.unreadable.shape
            assert thumbnail.pixels.shape == (height, width, 3)
            assert thumbnail.pixels.dtype == np.uint8
            assert max(height, width) == max_px
            assert width * thumbnail.scale.x == pytest.approx(size.width)
            assert height * thumbnail.scale.y == pytest.approx(size.height)
            assert not thumbnail.unreadable.any()
            again = slide.read(Box(0, 0, width, height), thumbnail.scale)
            assert off_by(thumbnail.pixels, again) <= 1

    def test_thumbnail_is_never_enlarged(self, slide: Slide) -> None:
        size = slide.info.size
        assert slide.thumbnail(100_000).pixels.shape == (size.height, size.width, 3)

    def test_strips_do_not_show(self, slide: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
        for scale in (Scale(1, 1), Scale(2.5, 2.5), Scale(0.7, 0.7)):
            box = whole(slide, scale)
            at_once = slide.read(box, scale)
            with monkeypatch.context() as patch:
                patch.setattr(raster, "MAX_SOURCE_BYTES", 100_000)
                assert off_by(slide.read(box, scale), at_once) <= 1

    def test_closing_twice_is_allowed_and_reading_then_is_an_error(self, slide: Slide) -> None:
        slide.close()
        slide.close()
        with pytest.raises(SlideReadError, match="closed"):
            slide.read(Box(0, 0, 5, 5), Scale(1, 1))

    def test_is_a_context_manager(self, slide: Slide) -> None:
        with slide as entered:
            assert entered is slide
        with pytest.raises(SlideReadError):
            slide.read(Box(0, 0, 5, 5), Scale(1, 1))

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_opens_in_a_forked_process(self, slide: Slide) -> None:
        if "fork" not in multiprocessing.get_all_start_methods():
            pytest.skip("no fork on this system")
        box, scale = Box(10, 20, 60, 50), Scale(2.5, 2.5)
        here = slide.read(box, scale)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            there = pool.apply(_read_elsewhere, (slide.info.path, slide.info.reader, box, scale))
        assert off_by(here, there) == 0
        assert off_by(here, slide.read(box, scale)) == 0

    def test_fingerprint_is_stable(self, slide: Slide) -> None:
        with open_slide(slide.info.path, reader=slide.info.reader) as again:
            assert again.info.fingerprint == slide.info.fingerprint
            assert again.info == slide.info

    def test_the_user_overrides_the_resolution(self, slide: Slide) -> None:
        with open_slide(slide.info.path, reader=slide.info.reader, mpp=0.31) as again:
            mpp = again.info.require_mpp()
            assert (mpp.x, mpp.y, again.info.mpp_source) == (0.31, 0.31, "user")
