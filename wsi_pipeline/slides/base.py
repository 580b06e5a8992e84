"""The one thing every reader of slides is: a `Slide`."""

from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.geometry import Box, Scale, SlideInfo, Thumbnail
from wsi_pipeline.tissue import TissueMask


class Slide(Protocol):
    """An open slide. Not thread-safe and not picklable: open one per process."""

    @property
    def info(self) -> SlideInfo:
        """What the slide is."""

    @property
    def coverage(self) -> TissueMask | None:
        """Where the slide has pixels at all, None where it has them everywhere (all but patch folders)."""

    @property
    def decodes(self) -> int | None:
        """Native tiles decoded so far, None where the reader does not know."""

    def read(self, box: Box, scale: Scale) -> NDArray[np.uint8]:
        """Pixels of the raster at `scale` inside `box` (in pixels of that raster).

        The raster is anchored at level 0, so the same raster pixel has the same colour whichever box it is read
        with. What lies outside the slide is white.

        Returns:
            RGB uint8, [box.height, box.width, 3].

        Raises:
            SlideReadError: where the file's pixels cannot be decoded. The slide stays usable for other boxes.
        """

    def thumbnail(self, max_px: int) -> Thumbnail:
        """The whole slide with its longer side at most `max_px` pixels; unreadable parts are marked, not raised."""

    def close(self) -> None:
        """Release the file; closing twice is allowed."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
