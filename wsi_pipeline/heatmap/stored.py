"""What can be read of a heatmap, finished or not."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_pipeline.errors import ConfigError
from wsi_pipeline.grid import Grid
from wsi_pipeline.heatmap.image import Ngff
from wsi_pipeline.heatmap.layers import Layers
from wsi_pipeline.heatmap.store import COMPUTED_BY, array, own_attributes, reading


class StoredMap:
    """Probability per class and cell of one slide, with what stands beside it."""

    path: Path
    """Where the finished heatmap stands, or will."""
    grid: Grid
    """The cells: size, shape, origin, resolution, and which of them belong to the run."""
    class_names: tuple[str, ...]
    """The classes, in the order of the channels."""
    positive_class: str
    """The class that the map is about."""
    tissue: NDArray[np.bool_]
    """[rows, cols]: True where a cell is tissue."""
    attributes: dict[str, Any]
    """Identity, grid, provenance, counts of cells, and whether the map is complete: all that is stored beside it."""

    def __init__(self, path: Path, group: zarr.Group, grid: Grid, tissue: NDArray[np.bool_]):
        self.path, self.grid, self.tissue = path, grid, tissue
        self.attributes = own_attributes(group)
        self._layers = Layers.of(self.attributes)
        self.class_names, self.positive_class = self._layers.class_names, self._layers.positive_class
        self._group = group

    @property
    def complete(self) -> bool:
        """Whether the map is finished and stands under its final name."""
        return bool(self.attributes["complete"])

    @property
    def version(self) -> Ngff:
        """The OME-Zarr version that the map has; while it is being worked on, always 0.5."""
        return "0.4" if self._group.metadata.zarr_format == 2 else "0.5"

    @property
    def computed_by(self) -> dict[str, str]:
        """What computed the cells, for records: ``engine`` and ``precision``; empty where nothing was noted.

        An interrupted map that another engine of the same precision went on with has both engines' names.
        """
        provenance = self.attributes["provenance"]
        noted = provenance.get(COMPUTED_BY, [provenance.get("model", {})])  # earlier versions noted one, there
        found = {key: dict.fromkeys(facts[key] for facts in noted if key in facts) for key in ("engine", "precision")}
        return {key: " and ".join(names) for key, names in found.items() if names}

    def probability(self, class_name: str) -> NDArray[np.float32]:
        """float32, [rows, cols]: probability of a class, NaN where a cell was not visited or could not be read.

        Of a map that is not finished: as the network gave it, before any second stage.

        Raises:
            ConfigError: where the heatmap has no such class.
            ResultsMismatchError: where the store is damaged.
        """
        if class_name not in self.class_names:
            raise ConfigError(self.path, f"has no class {class_name!r}", f"It has: {', '.join(self.class_names)}.")
        return self._channel(self.class_names.index(class_name))

    def spread(self) -> NDArray[np.float32] | None:
        """float32, [rows, cols]: standard deviation of the positive class's probability, None where none was made.

        Over what it was taken (symmetries, members of an ensemble), the provenance says. It is of the network's own
        probabilities, before any second stage. NaN where the probability is.

        Raises:
            ResultsMismatchError: where the store is damaged.
        """
        return None if self._layers.spread is None else self._channel(self._layers.spread)

    def unrefined(self) -> NDArray[np.float32] | None:
        """float32, [rows, cols]: the positive class's probability before the second stage, None where none was used.

        Raises:
            ResultsMismatchError: where the store is damaged.
        """
        return None if self._layers.unrefined is None else self._channel(self._layers.unrefined)

    def _channel(self, number: int) -> NDArray[np.float32]:
        with reading(self.path):
            return np.asarray(array(self._group, "0")[number], np.float32)

    def unread(self) -> NDArray[np.bool_]:
        """[rows, cols]: True where a cell belongs to the run but has no probability, because it could not be read."""
        return self.grid.cell_mask() & np.isnan(self.probability(self.class_names[0]))
