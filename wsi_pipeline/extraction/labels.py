"""From annotations to the label of every patch of a slide. Pure: shapes and a grid in, arrays out."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_pipeline.errors import DatasetError
from wsi_pipeline.extraction.annotations import SNAP_PX, AnnotationFile
from wsi_pipeline.extraction.coverage import DECIMALS, Lattice, area_coverage, polygons_of
from wsi_pipeline.extraction.rules import Meaning, PatchRules
from wsi_pipeline.geometry import Box, SlideInfo
from wsi_pipeline.grid import Grid

CUT = 0.1
"""Who draws around a slide's edge loses less of an annotation; more speaks for another slide or another scale."""


class Outcome(IntEnum):
    """What becomes of a position of the lattice. The first two are the labels of patches; the others are left out."""

    NEGATIVE = 0
    POSITIVE = 1
    BORDER = 2
    """Annotated in part: neither enough for its class, nor little enough for the other."""
    EXCLUDED = 3
    """On an excluded annotation, or where positive and negative annotations contradict each other."""
    OUTSIDE = 4
    """Outside the region that is annotated."""
    UNANNOTATED = 5
    """Tissue that nobody has judged, where the rest is not negative."""
    NO_TISSUE = 6
    """Too little tissue, or over the edge of the slide."""
    NOT_DRAWN = 7
    """Not among the patches drawn by `max_per_class`."""
    UNREADABLE = 8
    """The file's pixels could not be decoded."""
    BARE = 9
    """Annotated as class 1, but with too little tissue, or over the edge of the slide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Areas:
    """What is annotated, level-0 pixels, within the slide."""

    positive: shapely.MultiPolygon
    negative: shapely.MultiPolygon
    excluded: shapely.MultiPolygon
    """With the places where positive and negative contradict each other."""
    region: shapely.MultiPolygon | None
    """Where everything is annotated; None where that is the whole slide."""
    rest_is_negative: bool
    """Whether tissue that nothing covers is class 0."""
    notes: tuple[str, ...]

    @property
    def basis(self) -> str:
        """What class 0 rests on, in words."""
        place = "in regions" if self.region is not None else "on the whole slide"
        return f"all other tissue {place}" if self.rest_is_negative else f"annotated tissue {place}"


def gather_areas(file: AnnotationFile, rules: PatchRules, info: SlideInfo) -> Areas:
    """The annotated areas by what they mean.

    Args:
        file: The annotations, in pixels of QuPath's image.
        rules: What the classes mean.
        info: The slide; QuPath's image starts and ends at its bounds.

    Raises:
        DatasetError: where a class has no meaning, or nothing on the slide has one.
    """
    _require_meanings(file, rules)
    parts, outside, cut = _place(file, rules, info.bounds)
    if all(part.is_empty for key in ("positive", "negative", "region") for part in parts.get(key, ())):
        raise _nothing_annotated(file, rules, outside, info.bounds)
    positive, negative, excluded = (_union(parts.get(key, ())) for key in ("positive", "negative", "exclude"))
    both = _both(positive, negative)
    notes = [f"Annotations outside the slide, passed over: {outside}."] if outside else []
    if cut:
        notes.append(f"Annotations of which more than {CUT:.0%} lies outside the slide, cut at its edge: {cut}.")
    if not both.is_empty:
        mm2 = both.area * info.require_mpp().pixel_um2 * 1e-6
        notes.append(f"Annotated positive and negative at once, and left out: {mm2:.2g} mm².")
    region = _union(parts["region"]) if "region" in parts else None
    return Areas(
        positive=_without(positive, both),
        negative=_without(negative, both),
        excluded=_union([excluded, both]),
        region=region,
        rest_is_negative=_rest_is_negative(rules, region is not None),
        notes=(*file.notes, *notes),
    )


def _place(
    file: AnnotationFile, rules: PatchRules, extent: Box
) -> tuple[dict[Meaning, list[shapely.MultiPolygon]], int, int]:
    """Annotations by what they mean, in level-0 pixels and cut at the slide's edge.

    And how many lie outside it, and of how many a good part does.
    """
    slide = shapely.box(extent.x, extent.y, extent.right, extent.bottom)
    # QuPath's image starts at the bounds' corner, level 0 at the file's.
    corner, outside, cut = np.array([extent.x, extent.y]), 0, 0
    parts: dict[Meaning, list[shapely.MultiPolygon]] = {}
    for name, shapes in file.shapes.items():
        meaning = rules.meaning(name)
        if meaning is None or meaning == "ignore":
            continue
        for shape in shapes:
            placed = _both(shapely.transform(shape, lambda xy: xy + corner), slide)
            outside += placed.is_empty
            cut += not placed.is_empty and placed.area < (1 - CUT) * shape.area
            parts.setdefault(meaning, []).append(placed)
    return parts, outside, cut


def _require_meanings(file: AnnotationFile, rules: PatchRules) -> None:
    unknown = [f"{name} ({count})" for name, count in file.counts.items() if rules.meaning(name) is None]
    if unknown:
        raise DatasetError(
            file.path,
            f"holds annotations of classes that have no meaning here: {', '.join(unknown)}",
            "Name each with --positive, --negative, --region or --exclude, or pass over them with --ignore.",
        )


def _nothing_annotated(file: AnnotationFile, rules: PatchRules, outside: int, extent: Box) -> DatasetError:
    if outside:
        why = f"its annotations lie outside the slide ({extent.size} px)"
        return DatasetError(file.path, why, "Check that slide and annotations belong together.")
    classes = ", ".join((*rules.positive, *rules.negative, *rules.region))
    region = (*rules.region, "a region")[0]
    hint = f"On a slide without {rules.positive[0]}, outline the tissue that was looked at as {region}."
    return DatasetError(file.path, f"holds no annotation of {classes}", hint)


def _rest_is_negative(rules: PatchRules, has_region: bool) -> bool:
    if rules.rest == "auto":
        return has_region or not rules.negative
    return rules.rest == "negative"


def _union(shapes: Iterable[shapely.Geometry]) -> shapely.MultiPolygon:
    return polygons_of(shapely.union_all(list(shapes), grid_size=SNAP_PX))


def _both(one: shapely.Geometry, other: shapely.Geometry) -> shapely.MultiPolygon:
    return polygons_of(shapely.intersection(one, other, grid_size=SNAP_PX))


def _without(shape: shapely.Geometry, other: shapely.Geometry) -> shapely.MultiPolygon:
    return polygons_of(shapely.difference(shape, other, grid_size=SNAP_PX))


def patch_lattice(grid: Grid) -> Lattice:
    """The squares that patches show: the fields of view of the grid's cells, which touch each other."""
    x, y = first_window(grid)
    scale, side = grid.scale, grid.view.size_px
    return Lattice(
        corner=(x * scale.x, y * scale.y), step=(side * scale.x, side * scale.y), rows=grid.shape[0], cols=grid.shape[1]
    )


def first_window(grid: Grid) -> tuple[int, int]:
    """(x, y) of the first patch's first pixel in the raster at the patches' resolution."""
    ((x, y),) = grid.windows(np.zeros((1, 2), np.int32)).tolist()
    return x, y


def label_patches(grid: Grid, areas: Areas, rules: PatchRules) -> NDArray[np.uint8]:
    """[rows, cols]: the `Outcome` at every position.

    Args:
        grid: Native cells; those with tissue belong to it.
        areas: What is annotated.
        rules: From which coverage a patch has a class.
    """
    lattice = patch_lattice(grid)
    positive = area_coverage(areas.positive, lattice)
    outcome = np.full(grid.shape, Outcome.UNANNOTATED, np.uint8)
    if areas.rest_is_negative:
        outcome[:] = Outcome.NEGATIVE
    else:
        negative = area_coverage(areas.negative, lattice)
        outcome[negative > rules.max_mixed] = Outcome.BORDER
        outcome[negative >= rules.min_coverage] = Outcome.NEGATIVE
    outcome[positive > rules.max_mixed] = Outcome.BORDER
    outcome[positive >= rules.min_coverage] = Outcome.POSITIVE
    outcome[area_coverage(areas.excluded, lattice) > rules.max_stray] = Outcome.EXCLUDED
    if areas.region is not None:
        stray = np.round(1 - area_coverage(areas.region, lattice), DECIMALS)
        outcome[stray > rules.max_stray] = Outcome.OUTSIDE
    bare = ~grid.cell_mask() | _over_edge(grid, lattice)
    outcome[bare] = np.where(outcome[bare] == Outcome.POSITIVE, Outcome.BARE, Outcome.NO_TISSUE)
    if rules.max_per_class is not None:
        _draw(outcome, rules.max_per_class, rules.seed)
    return outcome


def _over_edge(grid: Grid, lattice: Lattice) -> NDArray[np.bool_]:
    """[rows, cols]: patches that reach over the edge of the slide, rounding by half of their pixels aside."""
    outside = []
    for corner, step, count, low, high, scale in (
        (lattice.corner[1], lattice.step[1], lattice.rows, grid.extent.y, grid.extent.bottom, grid.scale.y),
        (lattice.corner[0], lattice.step[0], lattice.cols, grid.extent.x, grid.extent.right, grid.scale.x),
    ):
        start = corner + np.arange(count) * step
        slack = scale / 2 + 1e-6
        outside.append((start < low - slack) | (start + step > high + slack))
    over: NDArray[np.bool_] = outside[0][:, None] | outside[1][None, :]
    return over


def _draw(outcome: NDArray[np.uint8], most: int, seed: int) -> None:
    """Keep `most` patches of each class, drawn at random; the same seed draws the same."""
    for label in (Outcome.NEGATIVE, Outcome.POSITIVE):
        places = np.flatnonzero(outcome == label)
        if len(places) > most:
            drawn = np.random.default_rng((seed, label)).permutation(places)
            outcome.flat[drawn[most:]] = Outcome.NOT_DRAWN
