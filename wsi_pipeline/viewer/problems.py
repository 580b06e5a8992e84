"""Errors as the viewer tells them: ``{"error": {"where", "why", "hint"}}`` with a fitting status."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from wsi_pipeline.errors import (
    ConfigError,
    DatasetError,
    OutputError,
    ResultsMismatchError,
    SlideFormatError,
    SlideNotFoundError,
    SlideReadError,
    WsiPipelineError,
)

log = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[WsiPipelineError], int], ...] = (
    (SlideNotFoundError, 404),
    (SlideReadError, 422),
    (SlideFormatError, 422),
    (ResultsMismatchError, 422),
    (DatasetError, 422),
    (ConfigError, 422),
    (OutputError, 507),
)
_WORDS = {404: "there is no such page", 405: "this method is not allowed here"}


class PlainJson(JSONResponse):
    """JSON in ASCII: odd bytes of a file's name that is no UTF-8 are answered as escapes instead of failing."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


class RequestError(WsiPipelineError):
    """A request that cannot be answered.

    Args:
        status: HTTP status.
        where: What it is about.
        why: What is wrong.
        hint: What to do.
        headers: Further headers of the answer.
    """

    def __init__(
        self, status: int, where: object, why: str, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(where, why, hint)
        self.status, self.headers = status, dict(headers or {})


def error_response(
    status: int, where: object, why: str, hint: str = "", headers: Mapping[str, str] | None = None
) -> PlainJson:
    """The JSON that every error has. It is never kept by a cache."""
    body = {"error": {"where": str(where), "why": why, "hint": hint}}
    return PlainJson(body, status, {"Cache-Control": "no-store", **(headers or {})})


def add_error_handlers(app: FastAPI) -> None:
    """Let an application answer every error in this form; faults of the program without their inner life."""

    def ours(_: Request, error: Exception) -> PlainJson:
        if isinstance(error, RequestError):
            return error_response(error.status, error.where, error.why, error.hint, error.headers)
        if not isinstance(error, WsiPipelineError):
            raise error
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        return error_response(status, error.where, error.why, error.hint)

    def of_starlette(request: Request, error: Exception) -> PlainJson:
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = str(error.detail) if isinstance(error, HTTPException) else ""
        headers = error.headers if isinstance(error, HTTPException) else None
        if status == 400:  # FastAPI's word for a body that is no JSON at all
            return error_response(422, "body", "cannot be read", "Send JSON in UTF-8.")
        return error_response(status, request.url.path, _WORDS.get(status, detail), headers=headers)

    def of_arguments(request: Request, error: Exception) -> PlainJson:
        first = error.errors()[0] if isinstance(error, RequestValidationError) and error.errors() else {}
        if first.get("loc", ("",))[0] == "path":
            return error_response(404, request.url.path, _WORDS[404])
        name = ".".join(str(part) for part in first.get("loc", ())[1:]) or request.url.path
        return error_response(422, name, str(first.get("msg", "is wrong")), "See the allowed values.")

    def unexpected(request: Request, error: Exception) -> PlainJson:
        log.error("%s failed", request.url.path, exc_info=error)
        return error_response(
            500, "wsi_pipeline", "unexpected fault of the program", "See the terminal in which it runs."
        )

    app.add_exception_handler(WsiPipelineError, ours)
    app.add_exception_handler(HTTPException, of_starlette)
    app.add_exception_handler(RequestValidationError, of_arguments)
    app.add_exception_handler(Exception, unexpected)
