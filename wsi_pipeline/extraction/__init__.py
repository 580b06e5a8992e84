"""Slides and annotations in, a data set of labelled patches out."""

from wsi_pipeline.extraction.cases import CaseResult, extract
from wsi_pipeline.extraction.rules import PatchRules, SlideSpec

__all__ = ["CaseResult", "PatchRules", "SlideSpec", "extract"]
