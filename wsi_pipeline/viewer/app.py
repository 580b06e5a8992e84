"""The viewer as an application."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from wsi_pipeline import __version__
from wsi_pipeline.viewer.options import ViewerOptions
from wsi_pipeline.viewer.problems import RequestError, add_error_handlers
from wsi_pipeline.viewer.routes import make_router
from wsi_pipeline.viewer.security import SecurityMiddleware, SecurityOptions
from wsi_pipeline.viewer.state import Viewer

WEB = Path(__file__).parent / "web"
"""The page: HTML, styles and scripts."""

log = logging.getLogger(__name__)


def create_app(results: Path, options: ViewerOptions | None = None) -> FastAPI:
    """The viewer of a folder of results.

    Args:
        results: The folder of one run, of several runs, or of one slide's result.
        options: What may be shown, and to whom.

    Raises:
        ConfigError: where `results` is no folder.
    """
    options = options or ViewerOptions()
    viewer = Viewer.of(results, options)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        viewer.pool.close()

    # No pages of documentation: they would load scripts from elsewhere.
    app = FastAPI(
        title="wsi-pipeline viewer",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.viewer = viewer
    add_viewer(app, viewer)
    app.add_middleware(
        SecurityMiddleware,
        options=SecurityOptions(host=options.host, token=options.token, max_body_bytes=options.max_body_bytes),
    )
    return app


def add_viewer(app: FastAPI, viewer: Viewer) -> None:
    """Add the page, its static files, the routes of a viewer and its form of errors to an application.

    Whoever does so closes ``viewer.pool`` at the end, and puts `SecurityMiddleware` around it all.
    """
    if not (WEB / "vendor" / "openseadragon.min.js").is_file():
        hint = "run `python hatch_build.py` in a working copy, or install the package again with npm's registry at hand"
        log.warning("The viewer was built without OpenSeadragon and can show no slides: %s.", hint)

    add_error_handlers(app)
    app.include_router(make_router(viewer))

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        if not (WEB / "index.html").is_file():
            raise RequestError(503, "viewer", "the page is not installed", "Install the package again with pip.")
        return FileResponse(WEB / "index.html", media_type="text/html", headers={"Cache-Control": "no-cache"})

    app.mount("/static", _StaticFiles(directory=WEB, check_dir=False), name="static")


class _StaticFiles(StaticFiles):
    """Files of the page, asked for anew each time and answered by "not modified", so that an update is seen at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response
