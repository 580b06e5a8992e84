"""The parts of a viewer, put together."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wsi_pipeline.viewer.annotations import Annotations
from wsi_pipeline.viewer.locate import SlideFinder
from wsi_pipeline.viewer.maps import Maps
from wsi_pipeline.viewer.options import ViewerOptions
from wsi_pipeline.viewer.pool import SlidePool
from wsi_pipeline.viewer.regions import Regions
from wsi_pipeline.viewer.results import Results
from wsi_pipeline.viewer.tiles import Tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """What the routes answer from."""

    options: ViewerOptions
    results: Results
    pool: SlidePool
    finder: SlideFinder
    tiles: Tiles
    maps: Maps
    regions: Regions
    annotations: Annotations

    @classmethod
    def of(cls, results: Path, options: ViewerOptions) -> "Viewer":
        """A viewer of a folder of results.

        Raises:
            ConfigError: where it is no folder.
        """
        pool = SlidePool(limit=options.open_slides)
        maps = Maps(options.map_cache_bytes)
        return cls(
            options=options,
            results=Results(results),
            pool=pool,
            finder=SlideFinder(options.slide_folders, pool, remote=options.remote_slides),
            tiles=Tiles(pool, options.tile_cache_bytes),
            maps=maps,
            regions=Regions(maps),
            annotations=Annotations(),
        )

    def warm_up(self) -> None:
        """Open the first slide, so that whoever comes first does not wait for imports and the disk.

        Whatever is wrong with it is told to those who ask for it.
        """
        with suppress(Exception):
            entry = next((entry for entry in self.results.slides() if entry.status == "done"), None)
            if entry is not None:
                self.tiles.thumbnail(self.finder.find(entry), self.maps.extent(entry))
