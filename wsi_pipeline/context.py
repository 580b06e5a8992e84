"""A second stage over the probability map: what the neighbourhood says of a cell.

Tumour is contiguous: a patch that looks doubtful by itself is judged by what lies around it. The stage is a logistic
regression (a dozen numbers in the bundle's card) on the cell's own log-odds and on Gaussian means of its neighbours'
log-odds at several distances; neighbours that are not there weigh nothing (normalised convolution, Knutsson & Westin,
CVPR 1993).

Distances are in fields of view, and the neighbours of a cell are those a whole number of fields of view away, so that
no pixel counts as its own neighbour (where cells do not fit into a field of view, those nearest to that). A dense map,
whose fields of view overlap, is thus a set of interleaved mosaics of patches, each refined just as the patches were
that the stage was fitted on.
"""

from collections.abc import Sequence
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from wsi_pipeline.mosaic import mosaics

Floats = NDArray[np.float64]
Positive = Annotated[float, Field(gt=0)]
Sigma = Annotated[float, Field(gt=0, le=1000)]
"""In fields of view: a neighbourhood beyond the largest slide's is none."""

SIGMAS = (1.0, 3.0, 9.0, 27.0)
"""Standard deviations that `fit_context` uses, in fields of view: from the next patches to the whole tissue."""

THINNED = (None, 160, 40, 8, 1)
"""Patches that a case has when `fit_context` looks at it: all, then fewer and fewer, at last each patch alone. Without
that, a stage fitted on well-filled cases is free to say anything of a cell that has no neighbours."""

_EXTREME = 1e-6
"""Probabilities are kept this far from 0 and 1, so that one cell that is very sure does not outvote all others."""

_REACH = 4.0
"""Neighbours farther away than this many standard deviations are left out."""

_FEW = 160
"""Up to so many cells are compared in pairs, as a picture around cells that lie far apart is mostly empty."""


class Context(BaseModel):
    """The stage's parameters, as they stand in a bundle's card."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    sigmas: Annotated[tuple[Sigma, ...], Field(min_length=1)]
    """Standard deviations of the Gaussian neighbourhoods, in fields of view."""
    shrink: Positive
    """Weight of an assumed neutral neighbour, so that few neighbours say little."""
    intercept: float
    own: float
    """Weight of the cell's own log-odds."""
    near: tuple[float, ...]
    """For each sigma: weight of the neighbours' mean log-odds."""
    trust: tuple[float, ...]
    """For each sigma: weight of the cell's own log-odds times how much of a neighbourhood there is, 0..1."""

    @model_validator(mode="after")
    def _a_weight_for_each_sigma(self) -> "Context":
        if not len(self.sigmas) == len(self.near) == len(self.trust):
            raise ValueError("sigmas, near and trust differ in length")
        return self


def refine(
    probability: NDArray[np.float32], context: Context, step: int = 1, spacing: float = 1.0
) -> NDArray[np.float32]:
    """The map as the neighbourhood sees it.

    Args:
        probability: [rows, cols] of the positive class, NaN where nothing is known.
        context: The stage's parameters.
        step: Cells along one side of a field of view: 1 for native cells, 16 for 50 px at 40x under 50 px at 2.5x.
        spacing: Fields of view from one cell to that `step` cells away; not 1 where cells do not fit into a field of
            view, or are larger than it.

    Returns:
        float32 [rows, cols]; NaN where it was NaN.
    """
    out = np.full(probability.shape, np.nan, np.float32)
    context = context.model_copy(update={"sigmas": tuple(sigma / spacing for sigma in context.sigmas)})
    for row in range(step):
        for col in range(step):
            mosaic = np.s_[row::step, col::step]
            if np.isfinite(probability[mosaic]).any():
                out[mosaic] = _refine_mosaic(probability[mosaic], context)
    return out


def refine_points(
    probability: NDArray[np.floating],
    positions: NDArray[np.integer],
    groups: NDArray[np.str_],
    patch_px: int,
    context: Context,
) -> NDArray[np.float32]:
    """The same for patches at known places, case by case.

    Args:
        probability: [n] of the positive class, NaN where nothing is known.
        positions: [n, 2], (x, y) of each patch's top-left pixel in its case's image.
        groups: [n], the case of each patch.
        patch_px: Side of a patch in the same pixels.
        context: The stage's parameters.

    Returns:
        float32 [n]; NaN where it was NaN.
    """
    out = np.full(len(probability), np.nan, np.float32)
    for mosaic in mosaics(positions, groups, patch_px):
        picture = mosaic.lay_out(probability[mosaic.rows], empty=np.nan)
        out[mosaic.rows] = _refine_mosaic(picture, context)[mosaic.cells]
    return out


def fit_context(
    probability: NDArray[np.floating],
    labels: NDArray[np.int64],
    positions: NDArray[np.integer],
    groups: NDArray[np.str_],
    patch_px: int,
    *,
    sigmas: Sequence[float] = SIGMAS,
    shrink: float = 1.0,
) -> Context:
    """Fit the stage on patches that the network did not train on (out of fold).

    It is fitted on cases of every density at once (`THINNED`), as it must serve whole slides and single patches.

    Args:
        probability: [n] of the positive class.
        labels: [n], 1 for the positive class, else 0.
        positions: [n, 2], as for `refine_points`.
        groups: [n], the case of each patch.
        patch_px: Side of a patch.
        sigmas: Standard deviations of the neighbourhoods, in fields of view.
        shrink: See `Context`.
    """
    from sklearn.linear_model import LogisticRegression

    features = np.empty((len(THINNED), len(labels), 1 + 2 * len(sigmas)))
    for level, most in enumerate(THINNED):
        parts = _thin(groups, most)
        for mosaic in mosaics(positions, parts, patch_px):
            values = probability[mosaic.rows]
            if len(values) <= _FEW:
                features[level, mosaic.rows] = _features_of_few(values, mosaic.cells, sigmas, shrink).T
            else:
                picture = mosaic.lay_out(values, empty=np.nan)
                features[level, mosaic.rows] = _features(picture, sigmas, shrink)[:, *mosaic.cells].T
    model = LogisticRegression(C=1.0, max_iter=5000).fit(np.concatenate(features), np.tile(labels, len(THINNED)))
    own, near, trust = np.split(model.coef_[0], [1, 1 + len(sigmas)])
    return Context(
        sigmas=tuple(sigmas),
        shrink=shrink,
        intercept=float(model.intercept_[0]),
        own=float(own[0]),
        near=tuple(near.tolist()),
        trust=tuple(trust.tolist()),
    )


def log_odds(probability: NDArray[np.floating]) -> Floats:
    """log(p / (1 - p)), with p kept off 0 and 1."""
    p = np.clip(probability.astype(np.float64), _EXTREME, 1 - _EXTREME)
    return np.log(p) - np.log1p(-p)


def _refine_mosaic(probability: NDArray[np.floating], context: Context) -> NDArray[np.float32]:
    weights = np.array([context.own, *context.near, *context.trust])
    features = _features(probability, context.sigmas, context.shrink)
    odds = context.intercept + np.tensordot(weights, features, 1)
    refined = 1 / (1 + np.exp(-odds))
    return np.where(np.isfinite(probability), refined, np.nan).astype(np.float32)


def _features(probability: NDArray[np.floating], sigmas: Sequence[float], shrink: float) -> Floats:
    """[1 + 2 sigmas, rows, cols]: own log-odds, neighbours' means, own log-odds times presence of neighbours."""
    own, there = _known(probability)
    sums = [(_neighbours(own, sigma), _neighbours(there, sigma)) for sigma in sigmas]
    return _stack(own, sums, shrink)


def _features_of_few(
    probability: NDArray[np.floating],
    cells: tuple[NDArray[np.integer], NDArray[np.integer]],
    sigmas: Sequence[float],
    shrink: float,
) -> Floats:
    """The same, [1 + 2 sigmas, n], of a few cells that may lie far apart: by their distances, without a picture."""
    own, there = _known(probability)
    rows, cols = (np.subtract.outer(place, place) for place in cells)
    squared, farthest = rows**2 + cols**2, np.maximum(np.abs(rows), np.abs(cols))
    sums = []
    for sigma in sigmas:
        weights = np.where(farthest <= _reach(sigma), np.exp(-squared / (2 * sigma**2)), 0.0)
        np.fill_diagonal(weights, 0.0)
        sums.append((weights @ own, weights @ there))
    return _stack(own, sums, shrink)


def _known(probability: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Log-odds, 0 where nothing is known; and 1 where something is, else 0."""
    there = np.isfinite(probability)
    return np.where(there, log_odds(np.where(there, probability, 0.5)), 0.0), there.astype(np.float64)


def _stack(own: Floats, sums: Sequence[tuple[Floats, Floats]], shrink: float) -> Floats:
    """Features from each sigma's sums over the neighbours: of their log-odds, and of their presence."""
    near = [total / (weight + shrink) for total, weight in sums]
    trust = [own * weight / (weight + shrink) for _, weight in sums]
    return np.stack([own, *near, *trust])


def _neighbours(values: Floats, sigma: float) -> Floats:
    """Sum over all other cells, weighted by exp(-distance² / 2 sigma²)."""
    reach = min(_reach(sigma), max(values.shape))
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    total = cv2.sepFilter2D(values, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(total, np.float64) - values


def _reach(sigma: float) -> int:
    """Cells away, along rows and along columns, that still count."""
    return int(np.ceil(_REACH * sigma))


def _thin(groups: NDArray[np.str_], most: int | None) -> NDArray[np.int64]:
    """Groups of at most `most` patches of one case, drawn at random (always the same), by number."""
    _, case = np.unique(groups, return_inverse=True)
    if most is None:
        return case.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(case))
    order = order[np.argsort(case[order], kind="stable")]
    starts = np.r_[0, np.flatnonzero(np.diff(case[order])) + 1]
    place = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    parts = np.empty(len(case), np.int64)
    parts[order] = case[order] * len(case) + place // most
    return parts
