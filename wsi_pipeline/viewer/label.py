"""The picture of a slide's label, which a viewer gives out only where it is told to."""

from wsi_pipeline.slides.label import read_label
from wsi_pipeline.viewer.pool import SlideFile
from wsi_pipeline.viewer.problems import RequestError
from wsi_pipeline.viewer.tiles import encode


def label_jpeg(file: SlideFile) -> bytes:
    """The label as JPEG, or the picture of the whole glass where the file has no other.

    Raises:
        RequestError: 404 where the file has neither.
    """
    pixels = read_label(file.address)
    if pixels is None:
        raise RequestError(404, file.address, "has no picture of its label")
    return encode(pixels)
