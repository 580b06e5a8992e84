"""The heatmap of one slide: an OME-Zarr store, written block by block, that survives a kill at any moment.

**On the way.** Blocks go into ``<path>.partial``, whose level 0 has one chunk a block, with all channels, and one
writer for each. Every file is written beside, synced and renamed, and a block counts as done only after its chunk is
on the disk. This store keeps the network's own scores to the end.

**At the end.** `Heatmap.finish` makes the whole image in ``<path>.image.partial``, from these scores and, where the
bundle has a second stage, from what that makes of them; then it renames the image to its final name and removes the
store of the scores. So whatever stands under the final name is whole, and a kill at any moment costs only the making
of the image, which is done again with the same result.

**What the image holds.** Channels of one image, so that every viewer shows them: the classes in the order of
`class_names`; then, where there are several answers to a field of view (test-time augmentation, ensembles), the
spread of the positive class's probability; then, where a second stage refined it, that probability as the network
gave it. Attributes say which are there.

Finishing holds a few channels of the map as arrays: at most some 8000 x 8000 cells, 256 MB each.
"""

from wsi_pipeline.heatmap.heatmap import BlockScores, Heatmap
from wsi_pipeline.heatmap.writer import BlockWriter

__all__ = ["BlockScores", "BlockWriter", "Heatmap"]
