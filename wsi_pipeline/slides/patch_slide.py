"""A case of Kaggle IDC patches as a slide: reassembled from the coordinates in the patches' names."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import SlideFormatError, SlideNotFoundError
from wsi_pipeline.geometry import Box, Level, Mpp, Scale, Size, SlideInfo, Thumbnail
from wsi_pipeline.masks import label
from wsi_pipeline.slides.files import resolution
from wsi_pipeline.slides.kaggle import Patch, PatchGeometry, PatchIndex, index_names, read_geometry
from wsi_pipeline.slides.mosaic import Mosaic, png_size
from wsi_pipeline.slides.patch_files import FileFacts, PatchFiles, open_files
from wsi_pipeline.slides.raster import RasterSlide
from wsi_pipeline.tissue import TissueMask
from wsi_pipeline.wording import some_names

NO_PATCH = 255
"""Label where no patch is."""

MAX_SIDE_UM = 200_000.0
"""A patch farther than this from the corner (20 cm) is none of a microscope slide."""

_LAYOUT = "<case>/<0 or 1>/<case>_idx5_x<X>_y<Y>_class<0 or 1>.png"


class PatchSlide(RasterSlide):
    """The patches of one case, seen as a slide of one level; white where no patch is.

    The patches are 50 x 50 px at 4 µm/px, as published, unless a file `CASE_FILE` in the case says otherwise.

    Args:
        address: A case's folder, a zip that holds one case, or ``path::case`` for one of several.
        mpp: Resolution in µm/px, where it is another.

    Raises:
        SlideNotFoundError: where there is no such folder or zip.
        SlideFormatError: where it holds no patches, not this case, or several cases and none is named.
        DatasetError: where the zip is broken.
        ResolutionError: where `mpp` is nonsense.
    """

    def __init__(self, address: str | Path, mpp: float | None = None) -> None:
        self._address = str(address)
        root, case = _split(self._address)
        self._files = open_files(root, case)
        try:
            self._open(root, case, mpp)
        except BaseException:
            self._files.close()
            raise

    def _open(self, root: str, case: str, mpp: float | None) -> None:
        index = index_names(root, self._files.names)
        case = _only_case(self._address, root, case, index)
        self.patches = index.cases[case]
        """The patches, each position once, in order of (y, x)."""
        facts = [self._files.facts(patch.member) for patch in self.patches]
        sizes = [png_size(fact.head) for fact in facts]
        geometry = read_geometry(self._address, case, self._files)
        self.patch_px = geometry.size_px
        """Side of a full-size patch."""
        self._mosaic: Mosaic | None = Mosaic(self._address, self._files, self.patches, sizes, self.patch_px)
        self._boxes = self._mosaic.boxes
        size = _extent(self._address, self.patches, self._boxes, geometry.mpp)
        resolved, source = resolution(self._address, mpp, None, [])
        self._labels = _labels(size, self.patches, self._boxes, self.patch_px)
        self.info = SlideInfo(
            slide_id=case,
            path=self._address,
            size=size,
            mpp=resolved or Mpp(geometry.mpp, geometry.mpp),
            mpp_source=source if resolved else geometry.source,
            levels=(Level(size, Scale(1, 1)),),
            bounds=Box(0, 0, size.width, size.height),
            vendor="kaggle-idc",
            reader="kaggle",
            fingerprint=_fingerprint(self.patches, facts, geometry),
            warnings=tuple(
                _warnings(index, case, sizes, boxes=self._boxes, labels=self._labels, patch_px=self.patch_px)
            ),
        )

    @property
    def labels(self) -> NDArray[np.uint8]:
        """[rows, cols], one per full-size patch: 1 IDC, 0 none, 255 no patch. A new array."""
        return self._labels.copy()

    @property
    def coverage(self) -> TissueMask:
        """Where patches are: one mask pixel per full-size patch."""
        return TissueMask(mask=self._labels != NO_PATCH, scale=Scale(self.patch_px, self.patch_px))

    def label_pixels(self, box: Box) -> NDArray[np.uint8]:
        """Labels [box.height, box.width] of level-0 pixels: 1 IDC, 0 none, 255 no patch or outside."""
        out = np.full((box.height, box.width), NO_PATCH, np.uint8)
        for patch, place in _positive_last(self.patches, self._boxes):
            here = place.intersection(box)
            out[here.y - box.y : here.bottom - box.y, here.x - box.x : here.right - box.x] = patch.label
        return out

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Pixels of the one level; see `RasterSlide.read_level`."""
        if self._mosaic is None:
            raise self.read_error(level, box, "the slide is closed")
        return self._mosaic.read(box)

    def thumbnail(self, max_px: int) -> Thumbnail:
        """The whole case; patches that cannot be decoded are white and marked. See `Slide.thumbnail`."""
        if self._mosaic is None:
            raise self.read_error(0, self.info.bounds, "the slide is closed")
        lenient = _Lenient(self.info, self._mosaic)
        thumbnail = RasterSlide.thumbnail(lenient, max_px)
        for place in lenient.unreadable:
            scale = thumbnail.scale
            rows = slice(int(place.y / scale.y), int(np.ceil(place.bottom / scale.y)))
            cols = slice(int(place.x / scale.x), int(np.ceil(place.right / scale.x)))
            thumbnail.unreadable[rows, cols] = True
        return thumbnail

    def close(self) -> None:
        """Release the zip and the decoded patches; closing twice is allowed."""
        self._files.close()
        self._mosaic = None


class _Lenient(RasterSlide):
    """The same pixels, white where a patch cannot be decoded."""

    def __init__(self, info: SlideInfo, mosaic: Mosaic) -> None:
        self.info, self._mosaic = info, mosaic
        self.unreadable: list[Box] = []

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:  # noqa: ARG002  (there is one level)
        return self._mosaic.read(box, self.unreadable)

    def close(self) -> None:
        """The mosaic belongs to the slide."""


def _split(address: str) -> tuple[str, str]:
    """Folder or zip, and the case named after ``::``, empty where none is."""
    if Path(address).exists():
        return address, ""
    root, mark, case = address.rpartition("::")
    return (root, case) if mark else (address, "")


def _only_case(address: str, root: str, case: str, index: PatchIndex) -> str:
    """The case that is named, or the only one."""
    if case:
        if case in index.cases:
            return case
        cases = sorted(index_names(root, _all_names(root)).cases)
        raise SlideNotFoundError(address, f"holds no case {case}", f"It holds {some_names(cases)}." if cases else "")
    cases = sorted(index.cases)
    if len(cases) == 1:
        return cases[0]
    if cases:
        why = f"holds {len(cases)} cases ({some_names(cases)}), and none is named"
        raise SlideFormatError(address, why, f"Name one: {address}::{cases[0]}.")
    why = "holds no IDC patches"
    if index.foreign:
        why += f"; it holds other files ({some_names(index.foreign)})"
    raise SlideFormatError(address, why, f"Expected {_LAYOUT}.")


def _all_names(root: str) -> tuple[str, ...]:
    files: PatchFiles = open_files(root)
    files.close()
    return files.names


def _extent(address: str, patches: Sequence[Patch], boxes: Sequence[Box], mpp: float) -> Size:
    size = Size(max(box.right for box in boxes), max(box.bottom for box in boxes))
    for patch, box in zip(patches, boxes, strict=True):
        if max(box.right, box.bottom) * mpp > MAX_SIDE_UM:
            why = f"the patch {patch.member} would lie {max(patch.x, patch.y)} px from the corner"
            raise SlideFormatError(address, why, f"No slide reaches over {MAX_SIDE_UM / mpp:.0f} px: check its name.")
    return size


def _positive_last(patches: Sequence[Patch], boxes: Sequence[Box]) -> list[tuple[Patch, Box]]:
    """Patches with their places, those with IDC last: they win where patches overlap."""
    return sorted(zip(patches, boxes, strict=True), key=lambda pair: pair[0].label)


def _labels(size: Size, patches: Sequence[Patch], boxes: Sequence[Box], patch_px: int) -> NDArray[np.uint8]:
    """[rows, cols]: the label of each position of the patches' lattice that a patch touches, else 255."""
    shape = -(-size.height // patch_px), -(-size.width // patch_px)
    labels = np.full(shape, NO_PATCH, np.uint8)
    for patch, box in _positive_last(patches, boxes):
        rows = slice(box.y // patch_px, (box.bottom - 1) // patch_px + 1)
        cols = slice(box.x // patch_px, (box.right - 1) // patch_px + 1)
        labels[rows, cols] = patch.label
    return labels


def _fingerprint(patches: Sequence[Patch], facts: Sequence[FileFacts], geometry: PatchGeometry) -> str:
    """SHA-256 of the patches' names and contents; the same for a folder, a zip and a zip with a second copy."""
    lines = [
        f"{patch.member.rsplit('/', 1)[-1]}:{fact.crc:08x}:{fact.size}\n"
        for patch, fact in zip(patches, facts, strict=True)
    ]
    if geometry != PatchGeometry():
        lines.append(f"{geometry.size_px}:{geometry.mpp}\n")
    return sha256("".join(sorted(lines)).encode()).hexdigest()


def _warnings(
    index: PatchIndex,
    case: str,
    sizes: Sequence[Size | None],
    *,
    boxes: Sequence[Box],
    labels: NDArray[np.uint8],
    patch_px: int,
) -> list[str]:
    """A sentence for each oddity of the case."""
    patches, found = index.cases[case], []
    full = f"{patch_px} x {patch_px} px"
    if copies := index.duplicates.get(case, 0):
        found.append(f"Further copies of patches, passed over: {copies}.")
    if conflicts := [f"x{x + 1}_y{y + 1}" for x, y in index.conflicts.get(case, ())]:
        found.append(f"Positions with both labels, of which class 1 (IDC) is kept: {_counted(conflicts)}.")
    if index.foreign:
        found.append(f"Files that are no patches: {_counted(index.foreign)}.")
    if broken := [patch.member for patch, size in zip(patches, sizes, strict=True) if size is None]:
        found.append(f"Patches that are no PNG files and cannot be read: {_counted(broken)}.")
    if odd := [str(box.size) for box in boxes if box.size != Size(patch_px, patch_px)]:
        found.append(f"Patches that are not {full}, placed as they are: {_counted(odd)}.")
    if off := [patch.member for patch in patches if patch.x % patch_px or patch.y % patch_px]:
        found.append(f"Patches that do not lie on the lattice of {full}: {_counted(off)}.")
    if holes := _count_holes(labels != NO_PATCH):
        found.append(f"Positions closed in by patches that have none (fat, glass or lost files), left white: {holes}.")
    return found


def _count_holes(present: NDArray[np.bool_]) -> int:
    """Positions without a patch that are closed in by patches (corners do not let through)."""
    pieces, sizes = label(np.pad(~present, 1, constant_values=True))
    return int(sizes[1:].sum() - sizes[pieces[0, 0]])


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} ({some_names(names)})"
