"""The documents of the interface."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from wsi_pipeline.config import RESEARCH_USE
from wsi_pipeline.service.choices import JobSettings
from wsi_pipeline.service.store import JobStatus
from wsi_pipeline.viewer.schema import Problem


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class JobRequest(BaseModel):
    """A slide to be run."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"slide": "case-7/slide.svs", "settings": {"cell": "native"}}]},
    )

    slide: Annotated[str, Field(min_length=1, max_length=1024)] = Field(
        description="file of a slide, relative to a folder that the service was started with, or its absolute path; "
        "of a zip file of patches `file.zip::case`"
    )
    model: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        None, description="name of a model of `/api/service`; the first where none is given"
    )
    settings: JobSettings | None = Field(None, description="what shall differ from the service's own settings")  # type: ignore[valid-type]


class Cells(_Answer):
    """How far a job is."""

    done: int = Field(ge=0)
    total: int = Field(ge=0)
    fraction: float = Field(ge=0, le=1)


class Job(_Answer):
    """A job. For research use only, not for diagnosis."""

    id: str
    slide: str
    model: str
    settings: dict[str, Any] = Field(description="settings that the request chose")
    status: JobStatus
    cancelling: bool = Field(description="it runs, but is to stop")
    cells: Cells | None = Field(description="null before the first cell")
    ahead: int | None = Field(description="jobs that come before it; null where it does not wait")
    tries: int
    created: str
    started: str | None
    finished: str | None
    error: Problem | None
    links: dict[str, str] = Field(description="addresses of what there is of it")
    research_use: str = RESEARCH_USE


class JobList(_Answer):
    """Jobs, the newest first."""

    jobs: list[Job]
    next: str | None = Field(description="id to give as `before` for the next page; null on the last")
    research_use: str = RESEARCH_USE


class ModelFacts(_Answer):
    """A model that requests may name."""

    name: str
    title: str
    description: str
    digest: str
    class_names: list[str]
    positive_class: str
    threshold: float = Field(description="probability from which the positive class is called")
    patch_px: int = Field(description="side of a patch in px")
    mpp: float = Field(description="resolution of a patch in µm/px")
    limits: list[str]


class ServiceState(_Answer):
    """What the service has and does."""

    version: str
    models: list[ModelFacts]
    roots: list[str] = Field(description="names of the folders that slides are taken from")
    worker: Literal["ready", "starting", "down"]
    problem: Problem | None = Field(description="why the worker is down")
    queued: int
    running: list[str] = Field(description="ids of running jobs")
    max_queued: int
    max_patch_bytes: int
    research_use: str = RESEARCH_USE


class PatchAnswer(_Answer):
    """Probabilities of a patch. For research use only, not for diagnosis."""

    model: str
    probabilities: dict[str, float] = Field(description="of each class; their sum is 1")
    positive_class: str
    probability: float = Field(description="of the positive class")
    threshold: float
    called: str = Field(description="class that is called at the threshold")
    notes: list[str] = Field(description="what a reader must know")
    research_use: str = RESEARCH_USE
