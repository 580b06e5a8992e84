"""Results of finished jobs over HTTP."""

from io import BytesIO
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, StreamingResponse

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.service.archive import Archive
from wsi_pipeline.service.job_routes import JobId
from wsi_pipeline.service.service import Service
from wsi_pipeline.viewer.regions import own_threshold
from wsi_pipeline.viewer.results import HEATMAP, OVERLAY, SlideEntry
from wsi_pipeline.viewer.schema import COLLECTION, GEOJSON, content

NOTE = {"X-Note": RESEARCH_USE}
"""Stands on the answers that have no room for it inside."""


def make_result_routes(service: Service) -> APIRouter:
    """The routes of results."""
    router = APIRouter(prefix="/api/jobs/{job_id}", tags=["results"])
    _add_numbers(router, service)
    _add_maps(router, service)
    return router


def _add_numbers(router: APIRouter, service: Service) -> None:
    @router.get("/summary")
    def get_summary(job_id: JobId) -> dict[str, Any]:
        """The numbers of `summary.json`: areas in mm², fraction, regions, threshold, model, warnings."""
        return dict(service.result(job_id).summary)

    @router.get("/regions.geojson", response_class=Response, responses=content(GEOJSON, schema=COLLECTION))
    def get_regions(
        job_id: JobId,
        threshold: Annotated[
            float | None,
            Query(
                ge=0, le=1, allow_inf_nan=False, description="probability from which a cell belongs; default: the job's"
            ),
        ] = None,
        smooth_um: Annotated[
            float | None, Query(ge=0, le=10_000, allow_inf_nan=False, description="smoothing of outlines, µm")
        ] = None,
    ) -> Response:
        """The regions at a threshold, as GeoJSON for QuPath in level-0 px."""
        entry = service.result(job_id)
        at = own_threshold(entry) if threshold is None else threshold
        found = service.viewer.regions.collection(entry, at, smooth_um)
        return Response(found, media_type=GEOJSON, headers=NOTE)

    @router.get("/overlay.png", response_class=FileResponse, responses=content("image/png"))
    def get_overlay(job_id: JobId) -> FileResponse:
        """Tint, outlines and legend over a picture of the slide."""
        return FileResponse(service.result(job_id).file(OVERLAY), media_type="image/png", headers=NOTE)


def _add_maps(router: APIRouter, service: Service) -> None:
    @router.get("/probability.npy", response_class=Response, responses=content("application/x-npy"))
    def get_probability(job_id: JobId) -> Response:
        """Probability of the positive class by cell, as `numpy.save` writes it: float32 [rows, cols], NaN: unknown."""
        entry = service.result(job_id)
        out = BytesIO()
        np.save(out, service.viewer.maps.get(entry).probability, allow_pickle=False)
        return Response(out.getvalue(), media_type="application/x-npy", headers=NOTE | _named(entry, "npy"))

    @router.get("/heatmap.zip", response_class=StreamingResponse, responses=content("application/zip"))
    def get_heatmap(job_id: JobId) -> StreamingResponse:
        """The heatmap as a zipped OME-Zarr: all classes, pyramid, grid, provenance. zarr opens the file as it is."""
        entry = service.result(job_id)
        archive = Archive(entry.file(HEATMAP))
        headers = NOTE | _named(entry, "zarr.zip")
        if archive.size is not None:
            headers |= {"Content-Length": str(archive.size)}
        return StreamingResponse(archive.pieces(), media_type="application/zip", headers=headers)


def _named(entry: SlideEntry, suffix: str) -> dict[str, str]:
    name = quote(f"{entry.name}.heatmap.{suffix}", safe="", errors="replace")
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
