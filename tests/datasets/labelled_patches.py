"""Small data sets of labelled patches, made for the tests."""

from collections.abc import Iterable, Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from wsi_pipeline.datasets.base import PatchDataset, Sample
from wsi_pipeline.geometry import Size

Files = dict[str, bytes]


def picture(width: int, height: int, shade: int, form: str = "PNG") -> bytes:
    """A plain picture, one shade everywhere but in its first pixel."""
    pixels = np.full((height, width, 3), shade % 256, np.uint8)
    pixels[0, 0] = (shade // 256, 1, 2)
    data = BytesIO()
    Image.fromarray(pixels).save(data, form)
    return data.getvalue()


def idc_name(case: str, column: int, label: int, row: int = 0, side: int = 50) -> str:
    return f"{case}/{label}/{case}_idx5_x{column * side + 1}_y{row * side + 1}_class{label}.png"


def idc_files(cases: Iterable[str], per_case: int = 4, side: int = 50) -> Files:
    """Patches of both classes in turn."""
    return {
        idc_name(case, n, n % 2, side=side): picture(side, side, 7 * number + n)
        for number, case in enumerate(cases)
        for n in range(per_case)
    }


class OnPaper(PatchDataset):
    """A data set without pictures: labels, groups and strata are all there is."""

    layout = "idc"
    root = "paper"
    mpp = 4.0
    patch_size = Size(50, 50)
    findings: tuple[str, ...] = ()

    def __init__(
        self,
        rows: Sequence[tuple[str, int]] | Sequence[tuple[str, int, str]],
        class_names: Sequence[str] = ("other", "IDC"),
    ) -> None:
        self.class_names, self.positive_class = tuple(class_names), class_names[-1]
        self.samples = tuple(
            Sample(name=f"{row[0]}/{n}", label=row[1], group=row[0], stratum=row[2] if len(row) > 2 else "")
            for n, row in enumerate(rows)
        )

    def read(self, index: int) -> np.ndarray:
        return np.full((50, 50, 3), index % 256, np.uint8)


def names_of(dataset: PatchDataset, indices: Iterable[int]) -> set[str]:
    return {dataset.samples[index].name for index in indices}


def groups_of(dataset: PatchDataset, indices: Iterable[int]) -> set[str]:
    return {dataset.samples[index].group for index in indices}
