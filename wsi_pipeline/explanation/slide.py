"""A region of a slide with the evidence in it: fields of view all over it, their maps put together."""

from dataclasses import dataclass, replace
from math import sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from wsi_pipeline.config import Settings
from wsi_pipeline.errors import ConfigError, SlideReadError
from wsi_pipeline.explanation.gradcam import GradCam
from wsi_pipeline.explanation.lookup import cells_in, look_up, sample
from wsi_pipeline.explanation.patches import find_class
from wsi_pipeline.explanation.region import (
    DEFAULT_VIEWS,
    MAX_VIEWS,
    Stitcher,
    as_text,
    check_region,
    covered,
    cut,
    in_parts,
    lattice,
    most_probable,
    parse_region,
    raster_box,
)
from wsi_pipeline.feed import read_blocks
from wsi_pipeline.geometry import Box, Scale, Thumbnail
from wsi_pipeline.grid import UPSAMPLE_TOLERANCE, CellSpec, Grid, plan_grid
from wsi_pipeline.inference import Predictor, default_batch
from wsi_pipeline.inference.devices import Device
from wsi_pipeline.models.base import ModelBundle
from wsi_pipeline.models.card import Card
from wsi_pipeline.plan import SlidePlan, plan_slide
from wsi_pipeline.slides import Slide
from wsi_pipeline.slides.source import SlideSource

MAX_LOOKS = 5000
"""About so many fields of view are looked at to find the most probable region of a slide."""

PICTURE_PX, WIDE_PICTURE_PX = 540, 900
"""Longer side of the region as it is drawn, three times side by side; and of a wide one, above each other."""

WIDE = 1.8
"""Width over height from which a region is wide."""

Origin = Literal["given", "found", "whole"]
"""The user named the region, the program found it the most probable one, or it is the whole of a small slide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedRegion:
    """A region of a slide as it is drawn, with what the network says of it."""

    slide_id: str
    region: Box
    """Level-0 pixels."""
    origin: Origin
    pixels: NDArray[np.uint8]
    """RGB [height, width, 3], square pixels."""
    um_per_px: float
    evidence: NDArray[np.float32]
    """[height, width], log-odds, at least 0; NaN where the slide is not analysed."""
    probability: NDArray[np.float32]
    """[height, width], of the cell under each pixel, calibrated, by its field of view alone; NaN as above."""
    cells: NDArray[np.float32]
    """[n]: the same of each cell of the region."""
    cell_um: float
    fields: int
    """How many fields of view the evidence is put together from."""
    positions: tuple[tuple[int, int], ...]
    """(rows, cols) of the network's own maps, before they were enlarged."""
    thumbnail: Thumbnail
    card: Card
    class_name: str
    """What evidence and probability are of."""
    upsampled: bool
    """Whether the slide is coarser than what the model needs, so that detail is invented."""
    looked: float = 1.0
    """Where it was found: the part of the tissue that was looked at, 0..1."""

    @property
    def how(self) -> str:
        """How it was chosen, in words, to stand behind a comma."""
        if self.origin != "found":
            return {"given": "as asked for", "whole": "the whole slide"}[self.origin]
        part = "" if self.looked > 0.99 else f" by a look at {self.looked:.2g} of its tissue"
        return f"the most probable of the slide{part}"


def explain_region(
    source: SlideSource,
    bundle: ModelBundle,
    settings: Settings,
    *,
    device: Device,
    region: str | None = None,
    class_name: str | None = None,
    batch: int | None = None,
) -> ExplainedRegion:
    """Explain a region of a slide.

    What a run would not analyse (glass, what lies between the patches of a patch folder) is not explained.

    Args:
        source: The slide.
        bundle: The model.
        settings: Of slides, tissue and grid, as for a run.
        device: Where the network runs.
        region: As `region.parse_region` reads it; None for the most probable part of the slide.
        class_name: What to show evidence for; None for the positive class.
        batch: Fields of view at once; None chooses.

    Raises:
        BundleError: where the network cannot be explained, or fits no slide.
        ConfigError: where the region is wrong, too large or holds nothing to analyse, or there is no such class.
        ResolutionError: where the slide's resolution is missing or does not suit the model.
        SlideFormatError: where the slide is smaller than one cell.
        SlideReadError: where pixels of the region cannot be decoded.
        InferenceError: where the network fails.
    """
    index, view = find_class(bundle.card, class_name), bundle.view
    cam = GradCam(bundle, device, batch_size=batch)
    with source.open() as slide:
        plan = plan_slide(slide, view, settings)
        size = batch or default_batch(bundle.card, device, max(1, len(plan.grid.cells)))
        model = _Model(Predictor(bundle=bundle, device=device, batch_size=size), cam, index)
        bounds, mpp = plan.info.bounds, plan.grid.mpp
        if region is not None:
            box = check_region(parse_region(region, mpp), bounds, mpp, view)
            return _explain(slide, plan, model, box, "given")
        if max(bounds.width * mpp.x, bounds.height * mpp.y) <= 1.5 * DEFAULT_VIEWS * view.size_um:
            return _explain(slide, plan, model, bounds, "whole")
        box, looked = _find(source, plan, settings, model)
        return replace(_explain(slide, plan, model, box, "found"), looked=looked)


@dataclass(frozen=True, slots=True)
class _Model:
    """What is asked of the network."""

    predictor: Predictor
    cam: GradCam
    index: int
    """Of the class."""

    def probabilities(self, pixels: NDArray[np.uint8], corners: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n]: of fields of view at corners (x, y) within `pixels`."""
        side = self.cam.bundle.card.patch_size_px
        parts = tqdm(list(in_parts(corners, side)), "probability", disable=None, leave=False)
        return np.concatenate([self.predictor.probabilities(cut(pixels, part, side))[:, self.index] for part in parts])

    def evidence(self, pixels: NDArray[np.uint8], corners: NDArray[np.int64], within: Box) -> NDArray[np.float32]:
        """[within.height, within.width]: put together from fields of view; all places count from those of `pixels`."""
        side = self.cam.bundle.card.patch_size_px
        stitcher = Stitcher(within, side)
        for part in tqdm(list(in_parts(corners, side)), "evidence", disable=None, leave=False):
            stitcher.add(self.cam.maps(cut(pixels, part, side), self.index), part)
        return stitcher.mean()


def _find(source: SlideSource, plan: SlidePlan, settings: Settings, model: _Model) -> tuple[Box, float]:
    """The most probable region, by looking at fields of view side by side; of much tissue, with gaps between them.

    And the part of the tissue that was looked at.
    """
    view, tissue_um2 = plan.grid.view, plan.tissue.area_mm2(plan.grid.mpp) * 1e6
    spacing = min(max(view.size_um, sqrt(tissue_um2 / MAX_LOOKS)), MAX_VIEWS * view.size_um)
    grid = plan_grid(
        plan.info,
        view,
        plan.tissue,
        cell=CellSpec(None if plan.patches_only else spacing),
        min_tissue=settings.grid.min_tissue,
        allow_upsampling=settings.grid.allow_upsampling,
    )
    found = np.full(grid.shape, np.nan, np.float32)
    with tqdm(total=len(grid.cells), desc="search", unit="field", disable=None, leave=False) as bar:
        blocks = read_blocks(source, grid, grid.blocks(), workers=settings.inference.workers)
        for scored in model.predictor.predict(blocks):
            found[scored.block.cells[:, 0], scored.block.cells[:, 1]] = scored.scores[:, model.index]
            bar.update(len(scored.block.cells))
    if not len(grid.cells):
        raise ConfigError("region", f"no tissue was found on {plan.info.path}", "Name a region, or lower --min-tissue.")
    if not np.isfinite(found).any():
        why = "none of its tissue can be read at the model's resolution"
        raise SlideReadError(plan.info.path, why, "Copy it again from its source.")
    return most_probable(found, grid), min(1.0, (view.size_um / grid.cell_um) ** 2)


def _explain(slide: Slide, plan: SlidePlan, model: _Model, region: Box, origin: Origin) -> ExplainedRegion:
    grid, card = plan.grid, model.cam.bundle.card
    cells = cells_in(grid, region)
    if not len(cells):
        why = f"{as_text(region)} holds no tissue that a run would analyse"
        raise ConfigError("region", why, "Choose another one, or lower --min-tissue.")
    box = raster_box(region, grid.scale)
    windows = grid.windows(cells)
    fields = _fields(plan, box)
    if plan.patches_only:  # also where a patch is alone, or smaller than a field: white beyond, as its cell is scored
        fields = np.unique(np.concatenate([fields, windows]), axis=0)
    corners = np.concatenate([fields, windows])
    corner, end = corners.min(axis=0), corners.max(axis=0) + grid.view.size_px
    seen = Box(*corner.tolist(), *(end - corner).tolist())
    pixels = slide.read(seen, grid.scale)
    scores = model.probabilities(pixels, windows - corner)
    within = Box(box.x - seen.x, box.y - seen.y, box.width, box.height)
    evidence = model.evidence(pixels, fields - corner, within)
    scale, place = _drawn(grid, region)
    probability = look_up(grid, cells, scores, scale=scale, place=place)
    shown = sample(evidence, box=box, scale=grid.scale, place=place, place_scale=scale)
    return ExplainedRegion(
        slide_id=plan.info.slide_id,
        region=region,
        origin=origin,
        pixels=slide.read(place, scale),
        um_per_px=scale.x * grid.mpp.x,
        evidence=np.where(np.isnan(probability), np.float32(np.nan), shown),
        probability=probability,
        cells=scores,
        cell_um=grid.cell_um,
        fields=len(fields),
        positions=model.cam.positions,
        thumbnail=plan.thumbnail,
        card=card,
        class_name=card.class_names[model.index],
        upsampled=max(grid.mpp.x, grid.mpp.y) > grid.view.mpp * UPSAMPLE_TOLERANCE,
    )


def _fields(plan: SlidePlan, box: Box) -> NDArray[np.int64]:
    """[n, 2]: corners of the fields of view that the evidence in a box of the raster is put together from.

    Those that see nothing analysed are left out; so are, in a patch folder, those between its patches that reach
    beyond them, where there is nothing.
    """
    grid, side = plan.grid, plan.grid.view.size_px
    corners = lattice(box, side)
    margin = side if plan.patches_only else 0
    wide = Box(box.x - margin, box.y - margin, box.width + 2 * margin, box.height + 2 * margin)
    ones = np.ones(len(grid.cells), np.float32)
    analysed = ~np.isnan(look_up(grid, grid.cells, ones, scale=grid.scale, place=wide))
    least = side * side if plan.patches_only else 1
    kept: NDArray[np.int64] = corners[covered(corners, side, analysed, wide) >= least]
    return kept


def _drawn(grid: Grid, region: Box) -> tuple[Scale, Box]:
    """The raster of the picture, with square pixels, and the region's box on it."""
    width, height = region.width * grid.mpp.x, region.height * grid.mpp.y
    um = max(width, height) / (WIDE_PICTURE_PX if width > WIDE * height else PICTURE_PX)
    scale = Scale.to_mpp(grid.mpp, um)
    x, y = round(region.x / scale.x), round(region.y / scale.y)
    right, bottom = round(region.right / scale.x), round(region.bottom / scale.y)
    return scale, Box(x, y, max(1, right - x), max(1, bottom - y))
