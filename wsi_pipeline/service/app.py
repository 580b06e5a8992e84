"""The service as an application: the viewer's pages and routes, and the interface for programs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import Response

from wsi_pipeline import __version__
from wsi_pipeline.errors import BundleError, ResolutionError
from wsi_pipeline.service.job_routes import make_job_routes
from wsi_pipeline.service.patch_routes import make_patch_routes
from wsi_pipeline.service.result_routes import make_result_routes
from wsi_pipeline.service.service import Service
from wsi_pipeline.viewer.app import add_viewer
from wsi_pipeline.viewer.problems import error_response
from wsi_pipeline.viewer.schema import ErrorAnswer
from wsi_pipeline.viewer.security import SecurityMiddleware, SecurityOptions

DESCRIPTION = """\
**For research use only, not for diagnosis.**

Slides of breast tissue in; maps of the probability of invasive ductal carcinoma (or of what else the model was trained
on), regions and areas out. A slide is submitted as a job, which is followed, cancelled, and asked for its results; it
survives a restart of the server. Patches are answered at once. What was found can be looked at slide by slide: tiles,
maps, regions at any threshold, annotations. Every error is `{"error": {"where", "why", "hint"}}`.
"""

_PROBLEMS = {
    401: "the token is missing or wrong",
    403: "not allowed: a path outside of the slides' folders, a link, or a page of another site",
    404: "there is no such thing",
    405: "not this method",
    409: "it is not in a state for this",
    413: "too large",
    415: "a kind of content that is not taken",
    421: "the request names another host",
    422: "something in the request is wrong",
    429: "too much is waiting: see Retry-After",
    500: "a fault of the program",
    503: "not possible at present: see Retry-After",
    507: "the results' disk cannot be written",
}


def create_app(service: Service) -> FastAPI:
    """The application of an open service, which whoever opened it closes."""
    options = service.options.viewer

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        # After a signal the server process ends right after this.
        service.keeper.close()

    app = FastAPI(
        title="wsi-pipeline",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their functions
        responses={status: {"model": ErrorAnswer, "description": text} for status, text in _PROBLEMS.items()},
    )
    app.include_router(make_job_routes(service))
    app.include_router(make_patch_routes(service))
    app.include_router(make_result_routes(service))
    add_viewer(app, service.viewer)
    _add_openapi(app, token=options.token is not None)
    for kind in (BundleError, ResolutionError):
        app.add_exception_handler(kind, _unprocessable)
    app.state.service = service
    app.add_middleware(
        SecurityMiddleware,
        options=SecurityOptions(host=options.host, token=options.token, max_body_bytes=options.max_body_bytes),
    )
    return app


def _unprocessable(_: Request, error: Exception) -> Response:
    assert isinstance(error, BundleError | ResolutionError)
    return error_response(422, error.where, error.why, error.hint)


def _add_openapi(app: FastAPI, *, token: bool) -> None:
    """Describe the routes that are there by now."""
    document: dict[str, Any] = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=list(app.routes)
    )
    if token:
        scheme = {"type": "http", "scheme": "bearer", "description": "the token that the program printed"}
        document.setdefault("components", {})["securitySchemes"] = {"token": scheme}
        document["security"] = [{"token": []}]
    app.openapi = lambda: document  # type: ignore[method-assign]
