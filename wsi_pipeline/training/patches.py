"""Labelled IDC patches in memory, from the folders and zips users have."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from wsi_pipeline.errors import DatasetError, SlideNotFoundError
from wsi_pipeline.slides.kaggle import PATCH_PX, Patch, index_patches


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSet:
    """Patches with their labels and cases; row n of each array is one patch."""

    images: NDArray[np.uint8]
    """RGB, [n, 50, 50, 3]; smaller patches are padded with white to the right and below."""
    labels: NDArray[np.int64]
    """[n]: 1 is IDC, 0 is not."""
    cases: NDArray[np.str_]
    """[n]: the case each patch comes from."""

    def of(self, cases: Sequence[str]) -> "PatchSet":
        """The patches of some cases."""
        keep = np.isin(self.cases, list(cases))
        return PatchSet(images=self.images[keep], labels=self.labels[keep], cases=self.cases[keep])


def load_patches(roots: Sequence[Path]) -> PatchSet:
    """Read every patch below some folders or zips; folders of zips are looked through.

    Raises:
        SlideNotFoundError: where a root does not exist.
        DatasetError: where there is no patch, a patch cannot be decoded, or only one class occurs.
    """
    archives = [archive for root in roots for archive in _archives(root)]
    patches: dict[tuple[str, int, int], Patch] = {}
    for archive in archives:
        for case, members in index_patches(archive).cases.items():
            for patch in members:
                patches.setdefault((case, patch.x, patch.y), patch)
    if not patches:
        raise DatasetError(
            ", ".join(map(str, roots)),
            "holds no IDC patch",
            "Patches are named <case>_idx5_x<X>_y<Y>_class<C>.png.",
        )
    ordered = sorted(patches.values(), key=lambda patch: (patch.root, patch.member))
    labels = np.array([patch.label for patch in ordered], np.int64)
    if len(np.unique(labels)) < 2:
        raise DatasetError(roots[0], f"holds patches of class {labels[0]} only", "Training needs both classes.")
    return PatchSet(images=_decode_all(ordered), labels=labels, cases=np.array([patch.case for patch in ordered]))


def _archives(root: Path) -> list[Path]:
    if not root.exists():
        raise SlideNotFoundError(root, "does not exist", "Check the path.")
    zips = sorted(root.rglob("*.zip")) if root.is_dir() else []
    return zips or [root]


def _decode_all(patches: Sequence[Patch]) -> NDArray[np.uint8]:
    images = np.full((len(patches), PATCH_PX, PATCH_PX, 3), 255, np.uint8)
    archive: ZipFile | None = None
    for image, patch in zip(images, tqdm(patches, desc="patches", unit="patch", disable=None), strict=True):
        root = Path(patch.root)
        if root.is_dir():
            data = (root / patch.member).read_bytes()
        else:
            if archive is None or archive.filename != patch.root:
                archive = ZipFile(root)
            data = archive.read(patch.member)
        try:
            pixels = np.asarray(Image.open(BytesIO(data)).convert("RGB"))[:PATCH_PX, :PATCH_PX]
        except (UnidentifiedImageError, OSError) as error:
            raise DatasetError(f"{root}: {patch.member}", f"is no readable image ({error})", "Remove it.") from error
        image[: pixels.shape[0], : pixels.shape[1]] = pixels
    return images
