"""The heatmap of one slide: an OME-Zarr store, written block by block, that survives a kill at any moment.

Work happens in ``<path>.partial``; only `Heatmap.finish` renames it to its final name, so whatever stands there is
whole. A block of cells is one chunk of level 0 and has one writer. Every file is written beside, synced and renamed,
and a block counts as done only after its chunk is on the disk.

Finishing holds one class of the map at a time as an array: at most some 8000 x 8000 cells, 256 MB.
"""

from wsi_pipeline.heatmap.heatmap import Heatmap

__all__ = ["Heatmap"]
