"""Engines: what computes a batch, behind one switch. A choice, and how to make what was chosen."""

from wsi_pipeline.inference.engines.base import Engine
from wsi_pipeline.inference.engines.choose import Choice, choose_engine
from wsi_pipeline.inference.engines.make import make_engine

__all__ = ["Choice", "Engine", "choose_engine", "make_engine"]
