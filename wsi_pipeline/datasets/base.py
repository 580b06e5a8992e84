"""What every data set of labelled patches is, whatever files it lies in."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.geometry import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One labelled patch. Its pixels are not read before they are needed."""

    name: str
    """Where it lies, below the data set's root: for people, and unique in the data set."""
    label: int
    """Index into the data set's `class_names`."""
    group: str
    """Case or patient: what a split must not divide."""
    position: tuple[int, int] | None = None
    """(x, y) of its top-left pixel in the case's image, 0-based, at the data set's `mpp`; None where not known."""
    stratum: str = ""
    """What else a split keeps in proportion, such as the magnification."""
    case: str = ""
    """The case in whose image `position` lies, where the group is a patient who may have several; else empty."""


class PatchDataset(ABC):
    """Labelled patches of one layout. Instances pickle: workers of a DataLoader open their own files."""

    layout: str
    """``idc``, ``breakhis`` or ``pcam``."""
    root: str
    """The folder or file that was opened."""
    class_names: tuple[str, ...]
    positive_class: str
    """The class that probabilities, curves and the heatmap are about."""
    patch_size: Size
    """Of a full-size patch, in pixels. `read` may give a smaller one (edges of a case)."""
    mpp: float | None
    """Resolution in µm/px; None where it differs from patch to patch."""
    source: str = ""
    """Who published it and under which licence; empty for one's own."""
    limits: tuple[str, ...] = ()
    """What a model that learns from the published patches is not made for, a sentence each; empty for one's own."""
    group_kind: str = "case"
    """What the samples' groups are: ``case``, ``patient``, ``slide``, or ``picture`` where none of these is known."""
    samples: tuple[Sample, ...]
    findings: tuple[str, ...]
    """What is odd about the files, a sentence each: duplicates, conflicts, odd sizes, missing labels."""

    @abstractmethod
    def read(self, index: int) -> NDArray[np.uint8]:
        """RGB pixels [height, width, 3] of a sample.

        Raises:
            DatasetError: where it cannot be decoded; its file is named.
        """

    def read_each(self, indices: Sequence[int] | NDArray[np.integer]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Many samples, each as its place in `indices` and its pixels, in the order that is quick to read.

        Raises:
            DatasetError: as `read`.
        """
        for place, index in enumerate(indices):
            yield place, self.read(int(index))

    def published_part(self, index: int) -> str | None:  # noqa: ARG002 - for layouts that know
        """``train``, ``validation`` or ``test`` where the files themselves say so, else None."""
        return None

    def subset(self, indices: Iterable[int]) -> Self:
        """The same data set with these samples only, in this order."""
        smaller = copy(self)
        smaller.samples = tuple(self.samples[index] for index in indices)
        return smaller

    @property
    def labels(self) -> NDArray[np.int64]:
        """[n]: label of each sample."""
        return np.array([sample.label for sample in self.samples], np.int64)

    @property
    def groups(self) -> NDArray[np.str_]:
        """[n]: case or patient of each sample."""
        return np.array([sample.group for sample in self.samples], np.str_)

    @property
    def cases(self) -> NDArray[np.str_]:
        """[n]: in whose image each sample's position lies; the same as `groups` but where patients have several."""
        return np.array([sample.case or sample.group for sample in self.samples], np.str_)

    @property
    def positions(self) -> NDArray[np.int64] | None:
        """[n, 2]: (x, y) of each sample in its case's image; None where not all are known."""
        places = [sample.position for sample in self.samples]
        return None if None in places else np.array(places, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.samples)
