"""What the description of the interface says of answers that are no documents of their own kind."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

Responses = dict[int | str, dict[str, Any]]

GEOJSON = "application/geo+json"

COLLECTION: dict[str, Any] = {
    "type": "object",
    "description": "a GeoJSON FeatureCollection, in pixels of the image as QuPath shows it",
    "properties": {
        "type": {"const": "FeatureCollection"},
        "features": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["type", "features"],
}


class Problem(BaseModel):
    """What is wrong with a request or a job."""

    model_config = ConfigDict(extra="forbid")

    where: str = Field(description="the file, setting or thing concerned")
    why: str = Field(description="what is wrong with it")
    hint: str = Field(description="what can be done about it; may be empty")


class ErrorAnswer(BaseModel):
    """The answer to a request that failed."""

    model_config = ConfigDict(extra="forbid")

    error: Problem


def content(*kinds: str, schema: dict[str, Any] | None = None) -> Responses:
    """An answer of one of these media types."""
    return {200: {"content": {kind: {"schema": schema or {"type": "string", "format": "binary"}} for kind in kinds}}}


def problem(status: int, description: str) -> Responses:
    """An error of this status."""
    return {status: {"model": ErrorAnswer, "description": description}}


UNCHANGED: Responses = {304: {"description": "it is as the client has it: see `If-None-Match`"}}
