"""On a slide, evidence lies where it is, on what a run analyses, and the cells have the run's probabilities."""

from collections.abc import Iterator
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from helpers import tissue_picture, write_bundle_of
from patches import name, png
from spots import RED, TISSUE, bundle_of, write_spots_bundle
from tiffs import write_pyramid
from torch import nn

from wsi_pipeline import pipeline
from wsi_pipeline.config import load_settings
from wsi_pipeline.errors import BundleError, ConfigError, ResolutionError, SlideReadError
from wsi_pipeline.explanation.slide import explain_region
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.inference import Predictor
from wsi_pipeline.models.architectures import build_network
from wsi_pipeline.models.bundle import load_bundle
from wsi_pipeline.patches import PixelBlock
from wsi_pipeline.slides.source import SlideSource

CPU = "cpu"
SPOT = (820, 310, 80, 60)
"""(x, y, width, height) of the one place with evidence, level-0 px."""
SETTINGS = {
    "tissue_min_area_um2": 500,
    "tissue_min_hole_um2": 500,
    "tissue_closing_um": 4,
    "workers": 0,
    "cell": "25um",
}


def source(path, mpp=None) -> SlideSource:
    return SlideSource(path=str(path), reader="auto", mpp=mpp)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    rng = np.random.default_rng(0)
    inside = tissue_picture(1300, 1000)[..., 1] < 150
    pixels = np.where(inside[..., None], TISSUE, (244, 244, 244)) + rng.integers(-6, 7, (1000, 1300, 3))
    x, y, width, height = SPOT
    pixels[y : y + height, x : x + width] = RED
    path = tmp_path_factory.mktemp("slide") / "spotted.tiff"
    return write_pyramid(path, base=pixels.clip(0, 255).astype(np.uint8), compression=None, compressionargs=None)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Fields of view of 50 px at 0.5 µm/px: 100 px of the slide, positions of 20."""
    return load_bundle(write_spots_bundle(tmp_path_factory.mktemp("bundle") / "spots", mpp=0.5))


def explain(slide, bundle, region=None, **changes):
    return explain_region(source(slide), bundle, load_settings(None, SETTINGS | changes), device=CPU, region=region)


def middle(found) -> tuple[float, float]:
    """(x, y) of the evidence's centre of mass, level-0 px (of 0.25 µm)."""
    weight = np.nan_to_num(found.evidence).astype(float)
    rows, cols = np.indices(weight.shape) + 0.5
    scale = found.um_per_px / 0.25
    x, y = ((axis * weight).sum() / weight.sum() * scale for axis in (cols, rows))
    return found.region.x + x, found.region.y + y


@pytest.mark.parametrize("region", ["500,150,701,507", "780,280,160,121", "150um,50um,120um,90um"])
def test_the_evidence_is_where_the_spot_is(slide, bundle, region):
    found = explain(slide, bundle, region)
    x, y, width, height = SPOT
    assert middle(found) == pytest.approx((x + width / 2, y + height / 2), abs=3)
    assert found.origin == "given"
    assert found.pixels.shape[:2] == found.evidence.shape == found.probability.shape
    # Nothing farther from the spot than one position, of 20 px.
    rows, cols = np.nonzero(np.nan_to_num(found.evidence) > 0.05 * np.nanmax(found.evidence))
    scale = found.um_per_px / 0.25
    assert found.region.x + cols.min() * scale > x - 22
    assert found.region.x + cols.max() * scale < x + width + 22
    assert found.region.y + rows.min() * scale > y - 22
    assert found.region.y + rows.max() * scale < y + height + 22


def test_the_picture_is_the_slide(slide, bundle):
    found = explain(slide, bundle, "780,280,160,120")
    assert found.pixels.shape == (405, 540, 3)
    inside, outside = round(60 / 160 * 540), 20
    assert abs(found.pixels[inside, inside].astype(int) - RED).max() <= 8
    assert abs(found.pixels[outside, outside].astype(int) - TISSUE).max() <= 12


def test_the_program_finds_the_place_by_itself(slide, bundle):
    found = explain(slide, bundle)
    x, y, width, height = SPOT
    assert found.origin == "found"
    assert found.region.width == found.region.height == 600
    assert found.region.x <= x
    assert found.region.right >= x + width
    assert middle(found) == pytest.approx((x + width / 2, y + height / 2), abs=8)  # it may be cut at the region's edge


def test_a_slide_whose_tissue_cannot_be_read_is_damaged_and_not_without_tissue(slide, bundle, monkeypatch):
    def nothing(blocks: Iterator[PixelBlock]) -> Iterator[SimpleNamespace]:
        for read in blocks:
            yield SimpleNamespace(block=read.block, scores=np.full((len(read.block.cells), 2), np.nan, np.float32))

    monkeypatch.setattr(Predictor, "predict", lambda _, blocks: nothing(blocks))
    with pytest.raises(SlideReadError, match=r"spotted\.tiff: none of its tissue can be read"):
        explain(slide, bundle)


def test_two_regions_agree_where_they_overlap(slide, bundle):
    one, two = explain(slide, bundle, "700,200,540,360"), explain(slide, bundle, "750,250,540,360")
    assert one.um_per_px == two.um_per_px == 0.25
    a, b = one.evidence[50:, 50:], two.evidence[:-50, :-50]
    inner = np.s_[3:-3, 3:-3]  # at a region's own edge nothing lies beyond to interpolate with
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    np.testing.assert_allclose(a[inner], b[inner], atol=1e-4)
    assert np.nanmax(a) > 1


def test_cells_have_the_probabilities_of_a_run_and_glass_is_left_out(tmp_path, slide, bundle):
    settings = load_settings(None, SETTINGS | {"model": str(bundle.path)})
    pipeline.run([str(slide)], tmp_path, settings)
    expected = Heatmap.open(tmp_path / "spotted" / "heatmap.zarr").probability("IDC")
    found = explain(slide, bundle, "0,0,1300,500")
    assert expected.shape == (10, 13)
    at = expected[:5]
    np.testing.assert_allclose(np.sort(found.cells), np.sort(at[~np.isnan(at)]), atol=1e-6)
    rows, cols = ((np.arange(n) + 0.5) * found.um_per_px / 25 for n in found.probability.shape)
    np.testing.assert_allclose(found.probability, at[np.ix_(rows.astype(int), cols.astype(int))], atol=1e-6)
    np.testing.assert_array_equal(np.isnan(found.evidence), np.isnan(found.probability))
    assert np.isnan(at).any()


class Glare(nn.Module):
    """A network that finds evidence where it is white."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 10, 10)
        with torch.no_grad():
            self.conv.weight.fill_(1 / 300)
            self.conv.bias.fill_(-0.9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = torch.relu(self.conv(x)).mean((2, 3))
        return torch.cat([torch.zeros_like(seen), 100 * seen], 1)


def test_between_the_patches_of_a_case_there_is_nothing_to_find(tmp_path):
    hole = (2, 1)
    places = [(col, row) for col in range(5) for row in range(4) if (col, row) != hole]
    files = {name(c, r, int(c == 1)): png(np.full((50, 50, 3), 120 + c + r, np.uint8)) for c, r in places}
    with ZipFile(tmp_path / "case.zip", "w") as archive:
        for member, data in files.items():
            archive.writestr(member, data)
    bundle = load_bundle(write_bundle_of(tmp_path / "glare", Glare(), size_px=50, mpp=4.0))
    found = explain_region(source(tmp_path / "case.zip"), bundle, load_settings(None, {"workers": 0}), device=CPU)
    assert (found.origin, found.cell_um, len(found.cells)) == ("whole", 200, 19)
    assert np.nanmax(found.evidence) == 0
    # The hole, and nothing else, is not analysed.
    assert np.isnan(found.evidence).mean() == pytest.approx(1 / 20, abs=0.01)


def test_the_edge_patches_of_a_case_have_evidence_too(tmp_path):
    """Smaller than a field of view, or alone: they are shown as they are scored, with white beyond."""
    sizes = {(0, 0): 50, (1, 0): 50, (2, 0): 20, (6, 3): 50}
    with ZipFile(tmp_path / "case.zip", "w") as archive:
        for (col, row), width in sizes.items():
            archive.writestr(name(col, row, 1), png(np.full((50, width, 3), RED, np.uint8)))
    bundle = load_bundle(write_spots_bundle(tmp_path / "spots", mpp=4.0))
    found = explain_region(source(tmp_path / "case.zip"), bundle, load_settings(None, {"workers": 0}), device=CPU)
    shown = ~np.isnan(found.evidence)
    assert found.probability[shown].min() > 0.99
    per_patch = found.evidence.shape[1] // 7
    for col, row in sizes:
        left, top = col * per_patch, row * per_patch
        strip = found.evidence[top + per_patch // 3 : top + per_patch // 2, left + 2 : left + per_patch // 4]
        assert np.nanmean(strip) > 1, (col, row)


def test_two_regions_of_a_case_agree_where_they_overlap(tmp_path):
    """Each is put together from all fields of view on the patches, those that reach beyond the region included."""
    pixels = np.full((200, 250, 3), TISSUE, np.uint8)
    red = np.random.default_rng(0).random((20, 25)) < 0.3
    pixels[red.repeat(10, 0).repeat(10, 1)] = RED
    with ZipFile(tmp_path / "case.zip", "w") as archive:
        for col, row in np.ndindex(5, 4):
            patch = pixels[row * 50 : row * 50 + 50, col * 50 : col * 50 + 50]
            archive.writestr(name(col, row, 1), png(patch))
    bundle = load_bundle(write_spots_bundle(tmp_path / "spots", mpp=4.0))
    one, two = (explain(tmp_path / "case.zip", bundle, place) for place in ("16,16,160,120", "56,48,160,120"))
    assert one.evidence.shape == two.evidence.shape == (405, 540)
    inner = np.s_[3:-3, 3:-3]
    a, b = one.evidence[108:, 135:][inner], two.evidence[:-108, :-135][inner]
    np.testing.assert_allclose(a, b, atol=1e-4)
    assert a.max() > 1


def test_a_search_with_gaps_is_told(slide, bundle, monkeypatch):
    whole = explain(slide, bundle)
    assert (whole.looked, whole.how) == (1, "the most probable of the slide")
    monkeypatch.setattr("wsi_pipeline.explanation.slide.MAX_LOOKS", 30)
    found = explain(slide, bundle)
    field, tissue = 25**2, np.pi * 130 * 100  # µm²; the tissue that is found has a rim
    assert found.looked == pytest.approx(30 * field / tissue, rel=0.2)
    assert found.how == f"the most probable of the slide by a look at {found.looked:.2g} of its tissue"


def test_evidence_for_the_other_class(slide, bundle):
    settings = load_settings(None, SETTINGS)
    found = explain_region(source(slide), bundle, settings, device=CPU, region="780,280,160,120", class_name="OTHER")
    assert found.class_name == "other"
    assert np.nanmax(found.evidence) == 0
    assert found.cells.min() < 0.5


@pytest.mark.parametrize(
    ("region", "error", "why"),
    [
        ("2000,0,10,10", ConfigError, r"2000,0,10,10 lies outside the slide"),
        ("0,0,60,60", ConfigError, "holds no tissue that a run would analyse"),
        ("1,2,3", ConfigError, "is no region"),
    ],
)
def test_wrong_regions_are_refused(slide, bundle, region, error, why):
    with pytest.raises(error, match=why):
        explain(slide, bundle, region)


def test_what_a_run_refuses_is_refused(tmp_path, slide, bundle):
    coarse = write_pyramid(tmp_path / "coarse.tiff", base=tissue_picture(300, 200), mpp=2.0)
    with pytest.raises(ResolutionError, match=r"the slide has 2 µm/px, the model needs 0\.5 µm/px"):
        explain(coarse, bundle, "0,0,100,100")
    unknown = write_pyramid(tmp_path / "unknown.tiff", base=tissue_picture(300, 200), mpp=None)
    with pytest.raises(ResolutionError, match="does not say its resolution"):
        explain(unknown, bundle)
    enlarged = explain(coarse, bundle, "100,60,60,60", allow_upsampling=True)
    assert enlarged.upsampled
    no_mpp = bundle_of(lambda: build_network("idc-cnn", 2).eval(), architecture="idc-cnn", mpp=None)
    with pytest.raises(BundleError, match="fits no slide"):
        explain(slide, no_mpp)


def test_a_slide_of_glass_has_nothing_to_explain(tmp_path, bundle):
    glass = np.full((1000, 1000, 3), 244, np.uint8)
    large = write_pyramid(tmp_path / "large.tiff", base=glass, mpp=0.5)
    with pytest.raises(ConfigError, match="no tissue was found"):
        explain(large, bundle)
    small = write_pyramid(tmp_path / "small.tiff", base=glass[:400, :400], mpp=0.5)
    with pytest.raises(ConfigError, match="0,0,400,400 holds no tissue that a run would analyse"):
        explain(small, bundle)
