"""Slides: one protocol, three readers, picked by what a file holds and not by its name."""

from pathlib import Path
from zipfile import is_zipfile

from wsi_pipeline.config import Reader
from wsi_pipeline.errors import SlideFormatError
from wsi_pipeline.slides.base import Slide
from wsi_pipeline.slides.choose import TIFF_VENDORS, open_tiff
from wsi_pipeline.slides.discover import find_slides
from wsi_pipeline.slides.files import TIFF_MAGIC, is_remote, open_bytes
from wsi_pipeline.slides.openslide_reader import OpenSlideReader, detect_vendor
from wsi_pipeline.slides.tiff_reader import TiffReader

__all__ = ["Slide", "find_slides", "open_slide"]

_OTHER_FILES = {
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip file that is damaged or cut short",
    b"<!DO": "a web page",
    b"<htm": "a web page",
}


def open_slide(path: str | Path, *, reader: Reader = "auto", mpp: float | None = None, threads: int = 1) -> Slide:
    """Open a slide with the reader that suits its content.

    Open it in the process that reads it: an open slide neither pickles nor survives a fork.

    Args:
        path: A local file, an fsspec address, a folder of one case's IDC patches, or ``file.zip::case``.
        reader: Insist on one reader; ``auto`` picks one, see `wsi_pipeline.slides.choose` for TIFF slides.
        mpp: Resolution of level 0 in µm/px, overrides the file's.
        threads: Native tiles of a TIFF slide decoded at the same time.

    Raises:
        SlideNotFoundError: where there is no such file.
        SlideFormatError: where no reader understands it, or it is empty or broken.
        ResolutionError: where `mpp` is nonsense.
    """
    address = str(path)
    if reader == "kaggle" or (reader == "auto" and _may_hold_patches(address)):
        from wsi_pipeline.slides.patch_slide import PatchSlide

        return PatchSlide(address, mpp)
    if reader == "tiff" or (reader == "auto" and is_remote(address)):
        return TiffReader(address, mpp, threads=threads)
    if reader == "openslide":
        return OpenSlideReader(address, mpp)
    return _open_local(address, mpp, threads)


def _may_hold_patches(address: str) -> bool:
    if is_remote(address):
        return False
    path = Path(address)
    return "::" in address or path.is_dir() or (path.is_file() and is_zipfile(path))


def _open_local(address: str, mpp: float | None, threads: int) -> Slide:
    with open_bytes(address) as file:
        head = file.read(4)
    vendor = detect_vendor(address)
    if vendor in TIFF_VENDORS:
        return open_tiff(address, mpp, threads=threads)
    if vendor is not None:
        return OpenSlideReader(address, mpp)
    if head in TIFF_MAGIC:
        return TiffReader(address, mpp, threads=threads)
    kind = next(
        (kind for magic, kind in _OTHER_FILES.items() if head.startswith(magic)), "in no slide format known here"
    )
    raise SlideFormatError(address, f"is {kind}, not a slide", "Check that it is what its name says.")
