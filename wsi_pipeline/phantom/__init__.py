"""A drawn breast specimen: a slide of any size with its tumour and tissue known, for demo, tests and benchmarks."""

from wsi_pipeline.phantom.model import Phantom
from wsi_pipeline.phantom.write import write_phantom

__all__ = ["Phantom", "write_phantom"]
