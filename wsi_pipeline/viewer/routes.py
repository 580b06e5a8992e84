"""The viewer's HTTP interface; what each answer is made of stands in the module of its name."""

from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.geometry import Box
from wsi_pipeline.viewer.cards import full_card
from wsi_pipeline.viewer.describe import describe_failed, describe_results, describe_slide
from wsi_pipeline.viewer.label import label_jpeg
from wsi_pipeline.viewer.maps import etag
from wsi_pipeline.viewer.problems import PlainJson, RequestError
from wsi_pipeline.viewer.regions import own_threshold
from wsi_pipeline.viewer.results import OVERLAY, SlideEntry
from wsi_pipeline.viewer.schema import COLLECTION, GEOJSON, UNCHANGED, content, problem
from wsi_pipeline.viewer.state import Viewer
from wsi_pipeline.viewer.tiles import JPEG_QUALITY, OVERVIEW_PX

SlideId = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="`id` of a slide in `/api/run`")]
Index = Annotated[int, Path(ge=0, le=1 << 24)]
Threshold = Annotated[
    float | None,
    Query(ge=0, le=1, allow_inf_nan=False, description="probability from which a cell belongs; default: the run's"),
]
Smoothing = Annotated[
    float | None,
    Query(ge=0, le=10_000, allow_inf_nan=False, description="smoothing of outlines, µm; default: the run's"),
]
Download = Annotated[bool, Query(description="whether a browser is to save it as a file")]

_TILE_AGE, _MAP_AGE = "private, max-age=3600", "private, no-cache"

_COLLECTION = content(GEOJSON, schema=COLLECTION)
_SAVED = (
    _COLLECTION
    | problem(412, "there is another version by now: its `ETag` is in the answer")
    | problem(428, "`If-Match` is missing")
)
_BODY = {"required": True, "content": {GEOJSON: {"schema": COLLECTION}}}


def make_router(viewer: Viewer) -> APIRouter:
    """The routes under ``/api`` of a viewer."""
    router = APIRouter(prefix="/api", tags=["results"])
    _add_descriptions(router, viewer)
    _add_pictures(router, viewer)
    _add_annotations(router, viewer)
    _add_maps(router, viewer)
    return router


def _add_descriptions(router: APIRouter, viewer: Viewer) -> None:
    @router.get("/run", response_class=PlainJson)
    def get_results() -> dict[str, Any]:
        """All runs and slides."""
        return describe_results(viewer.results)

    @router.get("/slides/{slide_id}", response_class=PlainJson)
    def get_slide(slide_id: SlideId) -> dict[str, Any]:
        """One slide: its size, grid, model and summary, and whether its pixels are at hand."""
        entry = viewer.results.slide(slide_id)
        if entry.status == "failed":
            return describe_failed(entry)
        found, show_label = viewer.maps.get(entry), viewer.options.show_label
        return describe_slide(entry, viewer.results, found, viewer.finder, show_label=show_label)

    @router.get("/slides/{slide_id}/card", response_class=PlainJson)
    def get_card(slide_id: SlideId) -> dict[str, Any]:
        """The card of the model."""
        entry = viewer.results.slide(slide_id)
        entry.require_done()
        return full_card(entry)


def _add_pictures(router: APIRouter, viewer: Viewer) -> None:
    @router.get(
        "/slides/{slide_id}/tiles/{level}/{col}_{row}.jpg",
        response_class=Response,
        responses=content("image/jpeg") | UNCHANGED,
    )
    def get_tile(
        request: Request, slide_id: SlideId, level: Annotated[int, Path(ge=0, le=40)], col: Index, row: Index
    ) -> Response:
        """A DeepZoom tile of 254 px with an overlap of 1 px; level `max_level` is full resolution."""
        entry, extent = _image(viewer, slide_id)
        file = viewer.finder.find(entry)
        tag = etag(entry.fingerprint, extent, level, col, row, JPEG_QUALITY, OVERVIEW_PX)
        if _is_known(request, tag):
            return _unchanged(tag, _TILE_AGE)
        return _answer(viewer.tiles.tile(file, extent, level, col, row), "image/jpeg", tag, _TILE_AGE)

    @router.get(
        "/slides/{slide_id}/thumbnail.jpg",
        response_class=Response,
        responses=content("image/jpeg", "image/png") | UNCHANGED,
    )
    def get_thumbnail(request: Request, slide_id: SlideId) -> Response:
        """The whole slide, at most 512 px; the run's own picture of it where the slide is no longer at hand."""
        entry, extent = _image(viewer, slide_id)
        try:
            file = viewer.finder.find(entry)
        except WsiPipelineError:
            return FileResponse(entry.file(OVERLAY), media_type="image/png", headers={"Cache-Control": _MAP_AGE})
        tag = etag(entry.fingerprint, extent, "thumbnail", JPEG_QUALITY)
        if _is_known(request, tag):
            return _unchanged(tag, _TILE_AGE)
        return _answer(viewer.tiles.thumbnail(file, extent), "image/jpeg", tag, _TILE_AGE)

    @router.get("/slides/{slide_id}/overlay.png", response_class=FileResponse, responses=content("image/png"))
    def get_slide_overlay(slide_id: SlideId) -> FileResponse:
        """The picture that the run made: tint, outlines and legend over a thumbnail."""
        entry = viewer.results.slide(slide_id)
        entry.require_done()
        return FileResponse(entry.file(OVERLAY), media_type="image/png", headers={"Cache-Control": _MAP_AGE})

    @router.get("/slides/{slide_id}/label.jpg", response_class=Response, responses=content("image/jpeg"))
    def get_label(slide_id: SlideId) -> Response:
        """The picture of the label; only where the viewer was started so."""
        if not viewer.options.show_label:
            hint = "A label may bear a patient's name. Start the viewer with --show-label to see it."
            raise RequestError(403, "label", "is not shown", hint)
        entry = viewer.results.slide(slide_id)
        entry.require_done()
        return Response(label_jpeg(viewer.finder.find(entry)), media_type="image/jpeg")


def _add_maps(router: APIRouter, viewer: Viewer) -> None:
    @router.get("/slides/{slide_id}/regions", response_class=Response, responses=_COLLECTION | UNCHANGED)
    def get_slide_regions(
        request: Request,
        slide_id: SlideId,
        threshold: Threshold = None,
        smooth_um: Smoothing = None,
        download: Download = False,
    ) -> Response:
        """The regions at a threshold as GeoJSON for QuPath, by the code and the rules of ``regions.geojson``."""
        entry = viewer.results.slide(slide_id)
        entry.require_done()
        at = own_threshold(entry) if threshold is None else threshold
        tag = etag(entry.id, entry.stamp, "regions", at, smooth_um)
        if _is_known(request, tag):
            return _unchanged(tag, _MAP_AGE)
        answer = _answer(viewer.regions.collection(entry, at, smooth_um), GEOJSON, tag, _MAP_AGE)
        if download:
            answer.headers["Content-Disposition"] = _attachment(f"{entry.name}-regions-{at:.3f}.geojson")
        return answer

    @router.get(
        "/slides/{slide_id}/{layer}",
        response_class=Response,
        responses=content("application/octet-stream") | UNCHANGED,
    )
    def get_layer(
        request: Request, slide_id: SlideId, layer: Literal["probability", "spread", "unrefined", "tissue"]
    ) -> Response:
        """A map, row by row: float32 little-endian with NaN where nothing is known; tissue as uint8."""
        entry = viewer.results.slide(slide_id)
        entry.require_done()
        tag = etag(entry.id, entry.stamp, layer)
        if _is_known(request, tag):
            return _unchanged(tag, _MAP_AGE)
        answer = _answer(viewer.maps.packed(entry, layer), "application/octet-stream", tag, _MAP_AGE)
        answer.headers["Content-Encoding"] = "gzip"
        return answer


def _add_annotations(router: APIRouter, viewer: Viewer) -> None:
    @router.get("/slides/{slide_id}/annotations", response_class=Response, responses=_COLLECTION | UNCHANGED)
    def get_annotations(request: Request, slide_id: SlideId, download: Download = False) -> Response:
        """What was drawn: GeoJSON for QuPath and for ``wsi-pipeline extract``."""
        entry = viewer.results.slide(slide_id)
        data, tag = viewer.annotations.read(entry)
        if _is_known(request, tag):
            return _unchanged(tag, _MAP_AGE)
        answer = _answer(data, GEOJSON, tag, _MAP_AGE)
        if download:
            answer.headers["Content-Disposition"] = _attachment(f"{entry.name}-annotations.geojson")
        return answer

    @router.put(
        "/slides/{slide_id}/annotations",
        response_class=Response,
        responses=_SAVED,
        openapi_extra={"requestBody": _BODY},
    )
    async def put_annotations(
        request: Request,
        slide_id: SlideId,
        if_match: Annotated[str | None, Header(description="`ETag` of the version that was seen last")] = None,
    ) -> Response:
        """Replace what was drawn; ``If-Match`` names the version that was seen last. Outlines come back mended."""
        data = await request.body()

        def save() -> tuple[bytes, str]:
            entry = viewer.results.slide(slide_id)
            return viewer.annotations.write(entry, data, viewer.maps.extent(entry).size, if_match)

        text, tag = await run_in_threadpool(save)
        return _answer(text, GEOJSON, tag, _MAP_AGE)


def _image(viewer: Viewer, slide_id: str) -> tuple[SlideEntry, Box]:
    entry = viewer.results.slide(slide_id)
    return entry, viewer.maps.extent(entry)


def _is_known(request: Request, tag: str) -> bool:
    return tag in (part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(","))


def _unchanged(tag: str, cache: str) -> Response:
    return Response(status_code=304, headers={"ETag": tag, "Cache-Control": cache})


def _answer(data: bytes, kind: str, tag: str, cache: str) -> Response:
    return Response(data, media_type=kind, headers={"ETag": tag, "Cache-Control": cache})


def _attachment(name: str) -> str:
    return f"attachment; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
