"""Where a slide comes from, in a form that can be sent to other processes and machines."""

from dataclasses import dataclass

from wsi_pipeline.config import Reader
from wsi_pipeline.slides import Slide, open_slide


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideSource:
    """How to open the same slide again in another process."""

    path: str
    reader: Reader
    mpp: float | None

    def open(self) -> Slide:
        """The slide, for this process alone."""
        return open_slide(self.path, reader=self.reader, mpp=self.mpp)
