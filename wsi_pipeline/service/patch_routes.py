"""Patches over HTTP: an image in, probabilities or Grad-CAM out."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.service.messages import Message, pack, unpack
from wsi_pipeline.service.schema import PatchAnswer
from wsi_pipeline.service.service import Service
from wsi_pipeline.viewer.problems import RequestError

_KINDS = ("image/png", "image/jpeg")
_BODY = {
    "requestBody": {
        "required": True,
        "description": "PNG or JPEG of the model's size, see `patch_px` and `mpp` in `/api/service`",
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _KINDS},
    }
}
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}

Model = Annotated[str | None, Query(min_length=1, max_length=255, description="name of a model; default: the first")]


async def image_of(request: Request) -> bytes:
    """The body of a request, which must be an image.

    Raises:
        RequestError: 415 where it says it is none; 422 where it is empty.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _KINDS:
        raise RequestError(415, "Content-Type", f"is {kind or 'missing'}", f"Send one of: {', '.join(_KINDS)}.")
    data = await request.body()
    if not data:
        raise RequestError(422, "patch", "the body is empty", "Send the image as the body.")
    return data


Image = Annotated[bytes, Depends(image_of)]


def make_patch_routes(service: Service) -> APIRouter:
    """The routes of patches."""
    router = APIRouter(prefix="/api/patches", tags=["patches"])

    def ask(do: str, image: bytes, model: str | None, **more: Any) -> Message:
        return service.ask({"do": do, "model": service.choose_model(model), "image": pack(image), **more})

    @router.post("/probabilities", openapi_extra=_BODY)
    def predict_patch(image: Image, model: Model = None) -> PatchAnswer:
        """Probabilities of an uploaded patch."""
        return PatchAnswer(**ask("predict", image, model)["found"])

    @router.post("/gradcam", openapi_extra=_BODY, response_class=Response, responses=_PICTURE)
    def explain_patch(
        image: Image,
        model: Model = None,
        class_name: Annotated[
            str | None,
            Query(
                alias="class",
                min_length=1,
                max_length=100,
                description="what to show evidence for; default: the positive class",
            ),
        ] = None,
    ) -> Response:
        """Where the model finds its evidence in an uploaded patch: Grad-CAM beside the patch, with a scale, as PNG."""
        answer = ask("explain", image, model, **{"class": class_name})
        return Response(unpack(answer["image"]), media_type="image/png", headers={"X-Note": RESEARCH_USE})

    return router
