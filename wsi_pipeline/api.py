"""The main job from Python: one slide in, its map, regions and numbers out.

>>> from wsi_pipeline import Heatmap, analyze, open_slide

A slide is looked at before anything is run on it:

>>> with open_slide("slide.tiff") as slide:
...     slide.info.size, slide.info.mpp.x
(Size(width=2400, height=2000), 0.25)

`analyze` takes the settings of ``wsi-pipeline run`` by name. Here cells are as large as the model's field of view:

>>> result = analyze("slide.tiff", cell="native")
>>> result.summary.slide, result.summary.cell_um
('slide', 200.0)
>>> result.summary.idc_mm2 <= result.summary.analysed_mm2
True

The map is a numpy array, and so is the area of its cells:

>>> probability = result.probability()
>>> probability.shape == result.heatmap.grid.shape
True
>>> sure = float(result.heatmap.grid.cell_area_um2[probability >= 0.9].sum()) * 1e-6
>>> 0 <= sure <= result.summary.analysed_mm2
True

Regions are polygons of shapely in pixels of the slide; another threshold needs no new run:

>>> [region.number for region in result.regions] == list(range(1, result.summary.regions + 1))
True
>>> stricter = result.regions_at(0.99)
>>> sum(region.area_um2 for region in stricter) <= sum(region.area_um2 for region in result.regions)
True

With `out` the results are kept, in the form that ``wsi-pipeline run`` writes; the same call finds them done:

>>> kept = analyze("slide.tiff", "results", cell="native")
>>> sorted(path.name for path in kept.folder.iterdir())
['heatmap.zarr', 'overlay.png', 'regions.geojson', 'summary.json', 'tissue.png']
>>> Heatmap.open("results/slide/heatmap.zarr").class_names
('non-IDC', 'IDC')

What is wrong is told with the way out:

>>> analyze("no-such-slide.svs")
Traceback (most recent call last):
...
wsi_pipeline.errors.SlideNotFoundError: ...no-such-slide.svs: does not exist. Check the path.
>>> analyze("slide.tiff", cel="native")
Traceback (most recent call last):
...
wsi_pipeline.errors.ConfigError: analyze: unknown setting 'cel'. Did you mean 'cell'?

For research use only.
"""

import shutil
import weakref
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from wsi_pipeline import errors
from wsi_pipeline.config import Settings, load_settings, options
from wsi_pipeline.errors import ConfigError, WsiPipelineError
from wsi_pipeline.heatmap import Heatmap
from wsi_pipeline.manifest import SlideResult, Summary
from wsi_pipeline.outputs import HEATMAP, OVERLAY, REGIONS, TISSUE
from wsi_pipeline.regions import Region, find_regions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Result", "analyze"]


class _Temporary:
    """A folder that is removed when nothing refers to this object any more."""

    def __init__(self) -> None:
        self.path = Path(mkdtemp(prefix="wsi-pipeline-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What `analyze` found on one slide; where no folder was named, its files go with it and its `heatmap`."""

    folder: Path
    """The slide's results: heatmap, regions, pictures, summary."""
    summary: Summary
    """The numbers: areas in mm², fraction, threshold and its source, seconds, warnings."""
    settings: Settings
    """All settings of the run, defaults too."""
    _keeper: "_Temporary | None" = field(default=None, repr=False)

    @cached_property
    def heatmap(self) -> Heatmap:
        """The map: probabilities, spread, grid and tissue."""
        heatmap = Heatmap.open(self.folder / HEATMAP)
        vars(heatmap)["_keeper"] = self._keeper  # it reads from the folder, also after this object is gone
        return heatmap

    def probability(self, class_name: str | None = None) -> "NDArray[np.float32]":
        """float32 [rows, cols]: probability of a class, by default the one that the regions are of; NaN: not scored.

        Raises:
            ConfigError: where the model knows no such class.
        """
        return self.heatmap.probability(class_name or self.heatmap.positive_class)

    @cached_property
    def regions(self) -> list[Region]:
        """The regions of the run, largest first: the outlines of ``regions.geojson``, with what was measured."""
        return self.regions_at(self.summary.threshold)

    def regions_at(self, threshold: float) -> list[Region]:
        """The regions at another threshold, by the run's other settings.

        Args:
            threshold: Probability from which a cell belongs to a region, 0 to 1.

        Raises:
            ConfigError: where it is no probability, or lies below the ``low_threshold`` of the settings.
        """
        if not 0 <= threshold <= 1:
            raise ConfigError("threshold", f"{threshold:g} is no probability", "Give a number from 0 to 1.")
        identity = self.summary.identity
        return find_regions(
            self.probability(),
            self.heatmap.grid,
            threshold=threshold,
            settings=self.settings.regions,
            namespace=f"{identity.slide}/{identity.bundle}/{identity.settings}",
            spread=self.heatmap.spread(),
        )

    @property
    def overlay(self) -> Path:
        """PNG: the map as a tint over the tissue, with outlines, colour bar and scale bar."""
        return self.folder / OVERLAY

    @property
    def tissue(self) -> Path:
        """PNG: what was taken for tissue."""
        return self.folder / TISSUE

    @property
    def geojson(self) -> Path:
        """The outlines for QuPath."""
        return self.folder / REGIONS

    def _repr_html_(self) -> str:
        """The overlay with the main numbers, for notebooks."""
        from wsi_pipeline.report.notebook import notebook_view

        return notebook_view(self.overlay, self.summary)


def analyze(
    slide: str | Path,
    out: str | Path | None = None,
    *,
    config: str | Path | None = None,
    overwrite: bool = False,
    **settings: object,
) -> Result:
    """Run the model over one slide.

    Args:
        slide: A file, an fsspec address, a folder of one case's patches, or ``file.zip::case``.
        out: Folder of the results, as ``wsi-pipeline run --out``: the slide gets a folder in it, an interrupted run is
            gone on with, a finished one is found. None: a temporary folder that goes with the result.
        config: YAML file of settings, or a shipped one by name (``idc-40x``, ``idc-kaggle``).
        overwrite: Replace results in `out` that were made with other settings, model or slide.
        **settings: Settings by name, which are those of the command line with underscores: ``model="my-bundle"``,
            ``cell="native"``, ``threshold=0.5``, ``tta=True``, ``device="cpu"``, ``mpp=0.25`` …

    Returns:
        The map, regions, pictures and numbers.

    Raises:
        ConfigError: where a setting is unknown or impossible, or `slide` names several slides.
        BundleError: where the model is missing or damaged.
        SlideNotFoundError: where there is no such slide.
        SlideFormatError, SlideReadError, ResolutionError: where the slide cannot be used.
        ResultsMismatchError: where `out` holds results of other settings and `overwrite` is not given.
        OutputError: where the results cannot be written.
        WsiPipelineError: for any other fault.
    """
    chosen = load_settings(config, _known(settings))
    path = _one_slide(slide)
    keeper = _Temporary() if out is None else None
    place = keeper.path if keeper else Path(str(out))
    from wsi_pipeline import pipeline

    (result,) = pipeline.run([path], place, chosen, overwrite=overwrite).results
    if result.summary is None:
        raise _error(result)
    return Result(folder=place / result.folder, summary=result.summary, settings=chosen, _keeper=keeper)


def _known(settings: dict[str, object]) -> dict[str, object]:
    """The settings, each of which must be there.

    Raises:
        ConfigError: where one is not.
    """
    for name in settings:
        if name not in options():
            near = get_close_matches(name, options(), n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(options())}."
            raise ConfigError("analyze", f"unknown setting {name!r}", hint)
    return settings


def _one_slide(slide: str | Path) -> str:
    from wsi_pipeline.slides import find_slides

    paths = find_slides([str(slide)])
    if len(paths) > 1:
        hint = f"Name one of them, such as {paths[0]}; `wsi_pipeline.pipeline.run` takes many."
        raise ConfigError(slide, f"names {len(paths):,} slides", hint)
    return paths[0]


def _error(result: SlideResult) -> WsiPipelineError:
    """The error that a slide's record keeps, as it was raised."""
    told = result.error or {}
    kind = getattr(errors, told.get("type", ""), WsiPipelineError)
    known = isinstance(kind, type) and issubclass(kind, WsiPipelineError)
    where, why, hint = (told.get(key, "") for key in ("where", "why", "hint"))
    if not known or kind is WsiPipelineError:
        return WsiPipelineError(where, f"{told.get('type', '')}: {why}", told.get("traceback", hint))
    return kind(where, why, hint)
