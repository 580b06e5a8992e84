"""What becomes of each patch: coverage, borders, regions, exclusions, classes that nobody explained."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from helpers import slide_info
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.errors import ConfigError, DatasetError
from wsi_pipeline.extraction.annotations import SNAP_PX, AnnotationFile
from wsi_pipeline.extraction.labels import Outcome, first_window, gather_areas, label_patches, patch_lattice
from wsi_pipeline.extraction.rules import PatchRules
from wsi_pipeline.geometry import Box, Mpp, Scale, SlideInfo
from wsi_pipeline.grid import CellSpec, Grid, plan_grid
from wsi_pipeline.tissue import TissueMask

N, P, B, E, O, U, T, D, _, X = Outcome  # noqa: E741
INFO = slide_info(500, 300)


def annotated(**shapes: list[shapely.Geometry]) -> AnnotationFile:
    found = {name.replace("_", " "): tuple(shapely.MultiPolygon([s]) for s in each) for name, each in shapes.items()}
    return AnnotationFile(path=Path("a.geojson"), digest="0", shapes=found, notes=())


def grid_of(info: SlideInfo, rules: PatchRules, tissue: np.ndarray | None = None) -> Grid:
    """A grid with tissue everywhere, or on the mask of one pixel per 100 x 100 level-0 pixels."""
    mask = np.ones((-(-info.size.height // 100), -(-info.size.width // 100)), bool) if tissue is None else tissue
    return plan_grid(
        info, rules.view, TissueMask(mask=mask, scale=Scale(100, 100)), cell=CellSpec(None), min_tissue=rules.min_tissue
    )


def outcomes(file: AnnotationFile, rules: PatchRules, tissue: np.ndarray | None = None) -> list[list[int]]:
    grid = grid_of(INFO, rules, tissue)
    return label_patches(grid, gather_areas(file, rules, INFO), rules).tolist()


def rules_of(**changes) -> PatchRules:
    """Patches of 100 x 100 level-0 pixels."""
    return PatchRules(**{"size_px": 50, "mpp": 0.5} | changes)


IDC = shapely.box(100, 0, 245, 200)
"""Covers two columns: the first wholly, the second by 45 %."""


def test_all_other_tissue_is_negative_and_borders_are_left_out():
    assert outcomes(annotated(IDC=[IDC]), rules_of()) == [[N, P, B, N, N], [N, P, B, N, N], [N, N, N, N, N]]


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"min_coverage": 0.46}, B),
        ({"min_coverage": 0.45}, P),
        ({"max_mixed": 0.44}, B),
        ({"max_mixed": 0.45}, N),
        ({"max_mixed": 0.5}, N),
        ({"max_mixed": 0.0, "min_coverage": 1.0}, B),
    ],
)
def test_thresholds_hold_to_the_last_digit(changes, label):
    assert outcomes(annotated(IDC=[IDC]), rules_of(**changes))[0] == [N, P, label, N, N]


@pytest.mark.parametrize("mixed", [0.1, 0.5, 1.0])
def test_however_mixed_no_patch_lies_where_nobody_judged(mixed):
    shapes = {"Region*": [shapely.box(0, 0, 450, 300)], "Ignore*": [shapely.box(100, 0, 150, 100)]}
    found = outcomes(annotated(IDC=[shapely.box(0, 0, 5, 5)], **shapes), rules_of(max_mixed=mixed))
    assert found[0] == [N, E, N, N, O]


def test_with_negative_classes_only_annotated_tissue_is_used():
    file = annotated(IDC=[IDC], Benign=[shapely.box(300, 0, 460, 160)])
    rules = rules_of(negative=("Benign",), min_coverage=0.6)
    assert outcomes(file, rules) == [[U, P, B, N, N], [U, P, B, N, B], [U, U, U, U, U]]
    areas = gather_areas(file, rules, INFO)
    assert areas.basis == "annotated tissue on the whole slide"
    assert not areas.rest_is_negative
    assert outcomes(file, rules_of(negative=("Benign",), rest="negative"))[2] == [N] * 5
    assert outcomes(annotated(IDC=[IDC]), rules_of(rest="skip")) == [[U, P, B, U, U]] * 2 + [[U] * 5]


def test_inside_a_region_everything_counts_and_outside_nothing():
    file = annotated(**{"IDC": [IDC], "Region*": [shapely.box(0, 0, 195, 295)]})
    expected = [[N, P, O, O, O], [N, P, O, O, O], [N, N, O, O, O]]
    assert outcomes(file, rules_of()) == expected
    assert outcomes(file, rules_of(negative=("Benign",))) == expected
    assert outcomes(file, rules_of(max_mixed=0.04)) == [[N, O, O, O, O]] * 2 + [[O] * 5]
    assert gather_areas(file, rules_of(), INFO).basis == "all other tissue in regions"
    with pytest.raises(DatasetError, match=r"no meaning here: Region\* \(1\)"):
        outcomes(file, rules_of(region=("Area",)))


@pytest.mark.parametrize(("stray", "first", "last"), [(10, N, N), (10.1, E, O)])
def test_a_patch_may_be_excluded_or_outside_the_region_by_a_tenth_and_no_more(stray, first, last):
    shapes = {"Ignore*": [shapely.box(0, 0, stray, 100)], "Region*": [shapely.box(0, 0, 500 - stray, 300)]}
    assert outcomes(annotated(IDC=[IDC], **shapes), rules_of())[0] == [first, P, B, N, last]


@pytest.mark.parametrize("share", [0.058, 0.059, 0.06, 0.061, 0.07])
def test_a_patch_may_stray_by_just_the_share_that_is_given(share):
    """1 - 0.059 is more than 0.941 in binary."""
    region = shapely.box(100 * share, 0, 500, 300)
    found = outcomes(annotated(IDC=[IDC], **{"Region*": [region]}), rules_of(max_mixed=share))
    assert found[0][0] == N


def test_excluded_places_are_left_out_and_ignored_annotations_do_not_count():
    place = shapely.box(0, 0, 115, 100)
    file = annotated(**{"IDC": [IDC], "Ignore*": [place]})
    assert outcomes(file, rules_of())[0] == [E, E, B, N, N]
    assert outcomes(file, rules_of(exclude=(), ignore=("Ignore*",)))[0] == [N, P, B, N, N]


def test_contradictions_are_left_out_with_a_word():
    file = annotated(IDC=[IDC], Benign=[shapely.box(150, 0, 200, 100)])
    rules = rules_of(negative=("Benign",), rest="negative")
    assert outcomes(file, rules) == [[N, E, B, N, N], [N, P, B, N, N], [N] * 5]
    assert gather_areas(file, rules, INFO).notes == (
        "Annotated positive and negative at once, and left out: 0.00031 mm².",
    )


def test_too_little_tissue_and_the_edge_of_the_slide():
    tissue = np.array([[1, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], bool)
    assert outcomes(annotated(IDC=[IDC]), rules_of(), tissue) == [[N, X, B, N, N], [N, P, B, N, N], [T] * 5]
    info, rules = slide_info(499, 230), rules_of()
    labels = label_patches(grid_of(info, rules), gather_areas(annotated(IDC=[IDC]), rules, info), rules)
    # A pixel of level 0 is half a pixel of the patch: rounding, not an edge.
    assert labels.tolist() == [[N, P, B, N, N], [N, P, B, N, N], [T] * 5]


def test_annotations_are_placed_from_the_corner_of_the_bounds():
    info = slide_info(2000, 2000, bounds=Box(700, 1100, 500, 300))
    rules = rules_of()
    areas = gather_areas(annotated(IDC=[IDC]), rules, info)
    assert areas.positive.bounds == (800, 1100, 945, 1300)
    grid = grid_of(info, rules)
    assert label_patches(grid, areas, rules).tolist() == [[N, P, B, N, N], [N, P, B, N, N], [N] * 5]
    assert first_window(grid) == (350, 550)


def test_annotations_are_cut_at_the_slide_and_those_outside_are_told():
    outside, half = shapely.box(600, 0, 700, 100), shapely.box(400, 0, 800, 100)
    areas = gather_areas(annotated(IDC=[outside, half]), rules_of(), INFO)
    assert areas.positive.equals(shapely.box(400, 0, 500, 100))
    assert areas.notes == (
        "Annotations outside the slide, passed over: 1.",
        "Annotations of which more than 10% lies outside the slide, cut at its edge: 1.",
    )
    assert gather_areas(annotated(IDC=[shapely.box(100, 0, 540, 100)]), rules_of(), INFO).notes == ()
    with pytest.raises(DatasetError, match=r"a\.geojson: its annotations lie outside the slide \(500 x 300 px\)"):
        gather_areas(annotated(IDC=[outside]), rules_of(), INFO)


def test_classes_without_a_meaning_are_refused_with_their_counts():
    file = annotated(IDC=[IDC], Stroma=[IDC, IDC], Unclassified=[IDC])
    with pytest.raises(DatasetError, match=r"no meaning here: Stroma \(2\), Unclassified \(1\)\. .*--ignore"):
        gather_areas(file, rules_of(), INFO)
    assert gather_areas(file, rules_of(negative=("stroma",), ignore=("UNCLASSIFIED",)), INFO).positive.area == 0


def test_a_file_without_anything_to_learn_from_is_refused():
    for file in (annotated(), annotated(**{"Ignore*": [IDC]})):
        with pytest.raises(DatasetError, match=r"holds no annotation of IDC, Region\*\. .*outline the tissue"):
            gather_areas(file, rules_of(), INFO)
    whole = shapely.box(0, 0, 500, 300)
    assert outcomes(annotated(**{"Region*": [whole]}), rules_of()) == [[N] * 5] * 3


def test_at_most_so_many_patches_of_each_class_are_drawn_the_same_each_time():
    rules = rules_of(max_per_class=1)
    drawn = np.array(outcomes(annotated(IDC=[IDC]), rules))
    assert np.bincount(drawn.ravel(), minlength=8)[[N, P, D]].tolist() == [1, 1, 11]
    assert outcomes(annotated(IDC=[IDC]), rules) == drawn.tolist()
    others = [outcomes(annotated(IDC=[IDC]), rules_of(max_per_class=1, seed=seed)) for seed in range(1, 6)]
    assert any(other != drawn.tolist() for other in others)


def test_which_patches_of_a_class_are_drawn_says_nothing_of_the_other_class():
    file = annotated(**{"IDC": [shapely.box(0, 0, 200, 300)], "Region*": [shapely.box(0, 0, 400, 300)]})
    differ = []
    for seed in range(8):
        drawn = np.array(outcomes(file, rules_of(max_per_class=1, seed=seed)))
        (one,), (other,) = np.flatnonzero(drawn[:, :2] == P), np.flatnonzero(drawn[:, 2:4] == N)
        differ.append(one != other)
    assert any(differ)


@given(
    x=st.floats(-50, 400), y=st.floats(-50, 250), width=st.floats(1, 400), height=st.floats(1, 300),
    mpp=st.tuples(st.floats(0.2, 0.5), st.floats(0.2, 0.5)), corner=st.tuples(st.integers(0, 90), st.integers(0, 90)),
    size_px=st.integers(8, 60),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_labels_are_those_of_the_pixels_that_patches_show(x, y, width, height, mpp, corner, size_px):
    info = slide_info(900, 700, mpp=Mpp(*mpp), bounds=Box(*corner, 800, 600))
    rules = PatchRules(size_px=size_px, mpp=0.5)
    shape = shapely.box(x, y, x + width, y + height)
    placed = shapely.intersection(shapely.transform(shape, lambda xy: xy + corner), shapely.box(*corner, 890, 690))
    if placed.buffer(-SNAP_PX).is_empty:  # on the raster of outlines it may be nothing
        return
    grid = grid_of(info, rules)
    found = label_patches(grid, gather_areas(annotated(IDC=[shape]), rules, info), rules)
    cells = np.argwhere(np.ones(grid.shape, bool)).astype(np.int32)
    scale = np.array([grid.scale.x, grid.scale.y])
    low = grid.windows(cells) * scale
    high = low + size_px * scale
    covered = shapely.area(shapely.intersection(placed, shapely.box(*low.T, *high.T))) / np.prod(size_px * scale)
    label = found[cells[:, 0], cells[:, 1]]
    inside = ((low >= corner) & (high <= np.add(corner, (800, 600)))).all(axis=1)
    assert (label[inside & (covered > 0.501)] == P).all()
    assert (label[inside & (covered < 0.099)] == N).all()
    assert (label[inside & (covered > 0.101) & (covered < 0.499)] == B).all()
    over = ((low < corner - scale) | (high > np.add(corner, (800, 600)) + scale)).any(axis=1)
    assert not (label[over] <= 1).any()


def test_the_lattice_is_that_of_the_fields_of_view():
    info = slide_info(3000, 2000, mpp=Mpp(0.2519, 0.4013), bounds=Box(37, 11, 2900, 1800))
    rules = PatchRules(size_px=50, mpp=0.5)
    grid = grid_of(info, rules)
    cells = np.argwhere(np.ones(grid.shape, bool)).astype(np.int32)
    assert (grid.windows(cells) == np.array(first_window(grid)) + cells[:, ::-1] * 50).all()
    lattice = patch_lattice(grid)
    assert (lattice.rows, lattice.cols) == grid.shape
    assert lattice.step == pytest.approx((50 * 0.5 / 0.2519, 50 * 0.5 / 0.4013))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size_px": 4}, "--size-px: 4 is impossible. Expected: 8 to 1024"),
        ({"size_px": 4096}, "--size-px: 4096"),
        ({"mpp": 0.0}, "--mpp: 0"),
        ({"mpp": float("nan")}, "--mpp: nan"),
        ({"min_coverage": 0.0}, "--min-coverage: 0"),
        ({"min_coverage": 1.1}, "--min-coverage: 1.1"),
        ({"max_mixed": -0.1}, "--max-mixed: -0.1"),
        ({"min_tissue": 2}, "--min-tissue: 2"),
        ({"max_per_class": 0}, "--max-per-class: 0"),
        ({"positive": ()}, "--positive"),
        ({"positive": ("IDC", "Tumor"), "negative": ("tumor",)}, "tumor: is named both as positive and as negative"),
        ({"ignore": ("Region*",)}, r"Region\*: is named both as region and as ignore"),
    ],
)
def test_impossible_settings_are_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match=message):
        PatchRules(**changes)
