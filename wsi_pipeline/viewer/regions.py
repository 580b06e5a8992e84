"""Regions of a result at any threshold: the same functions that made its ``regions.geojson``."""

import json
from collections.abc import Mapping
from typing import Any

from wsi_pipeline.config import RegionSettings
from wsi_pipeline.geojson import region_features
from wsi_pipeline.regions import find_regions
from wsi_pipeline.viewer.cache import ByteCache
from wsi_pipeline.viewer.maps import Maps
from wsi_pipeline.viewer.results import SlideEntry
from wsi_pipeline.viewer.turns import Turns

_AT_ONCE, _WAITING = 2, 16
_KEPT_BYTES = 64 << 20


class Regions:
    """Finds regions, a bounded number at once.

    Args:
        maps: The maps they are found on.
    """

    def __init__(self, maps: Maps) -> None:
        self._maps = maps
        self._kept: ByteCache[bytes] = ByteCache(_KEPT_BYTES, len)
        self._turns = Turns(("regions", "too many are being found at once"), at_once=_AT_ONCE, waiting=_WAITING)

    def collection(self, entry: SlideEntry, threshold: float, smooth_um: float | None) -> bytes:
        """The regions as a QuPath FeatureCollection, UTF-8 JSON, in pixels of the image as QuPath shows it.

        At the run's own threshold and smoothing these are the features of its ``regions.geojson``.

        Args:
            entry: The result.
            threshold: Probability from which a cell belongs, 0 to 1.
            smooth_um: Smoothing of the outlines, µm; None for the run's own.

        Raises:
            RequestError: 503 where too many wait already; else as `Maps.get`.
        """
        settings = region_settings(entry, threshold, smooth_um)
        key = entry.id, entry.stamp, threshold, settings.smooth_um
        known = self._kept.get(key)
        if known is not None:
            return known
        with self._turns.take():
            return self._kept.get(key) or self._kept.put(key, self._find(entry, threshold, settings))

    def _find(self, entry: SlideEntry, threshold: float, settings: RegionSettings) -> bytes:
        found = self._maps.get(entry)
        identity = entry.summary["identity"]
        regions = find_regions(
            found.probability,
            found.grid,
            threshold=threshold,
            settings=settings,
            namespace=f"{identity.get('slide')}/{identity.get('bundle')}/{identity.get('settings')}",
            spread=found.spread,
        )
        features = list(region_features(regions, found.grid, class_name=found.positive_class))
        collection = {"type": "FeatureCollection", "features": features}
        return json.dumps(collection, separators=(",", ":"), allow_nan=False).encode()


def region_settings(entry: SlideEntry, threshold: float, smooth_um: float | None) -> RegionSettings:
    """The run's settings of its regions, with another threshold; the lower one is never above it."""
    own = run_regions(entry)
    return RegionSettings(
        low_threshold=own.low_below(threshold),
        min_region_um2=own.min_region_um2,
        smooth_um=own.smooth_um if smooth_um is None else smooth_um,
    )


def run_regions(entry: SlideEntry) -> RegionSettings:
    """How the run found its regions, as its record says; the defaults where it says nothing sensible."""
    settings = entry.run.record.get("settings")
    given: Any = settings.get("regions") if isinstance(settings, Mapping) else None
    try:
        return RegionSettings.model_validate(given or {})
    except ValueError:
        return RegionSettings()


def own_threshold(entry: SlideEntry) -> float:
    """The threshold that a run's numbers hold for, 0 to 1."""
    value = entry.summary.get("threshold")
    return min(1.0, max(0.0, float(value))) if isinstance(value, int | float) else 0.5
