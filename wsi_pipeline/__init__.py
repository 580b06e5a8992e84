"""Whole-slide images of breast tissue in, heatmaps of invasive ductal carcinoma out. For research use only.

>>> from wsi_pipeline import Heatmap, analyze, open_slide

`analyze` runs the model over one slide, `open_slide` opens one for reading, `Heatmap.open` reads a finished map.
They are imported when they are first asked for: ``import wsi_pipeline`` itself loads nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsi_pipeline.api import Result, analyze
    from wsi_pipeline.heatmap import Heatmap
    from wsi_pipeline.slides import open_slide

__version__ = "0.1.0"

__all__ = ["Heatmap", "Result", "__version__", "analyze", "open_slide"]

_HOMES = {"Heatmap": "heatmap", "Result": "api", "analyze": "api", "open_slide": "slides"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
