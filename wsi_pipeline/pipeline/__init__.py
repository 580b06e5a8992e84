"""One slide, start to end; and many, one after the other."""

from wsi_pipeline.pipeline.batch import JobRunner, run, run_here
from wsi_pipeline.pipeline.scores import CellProgress
from wsi_pipeline.pipeline.slide import analyse, job_result, run_job

__all__ = ["CellProgress", "JobRunner", "analyse", "job_result", "run", "run_here", "run_job"]
