"""What a run ran on and with: versions and hardware, for the record."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from wsi_pipeline import __version__
from wsi_pipeline.machine import available_cores

_PACKAGES = (
    *("imagecodecs", "numpy", "opencv-python-headless", "openslide-python", "openslide-bin", "openvino", "shapely"),
    *("tifffile", "torch", "torchvision", "zarr"),
)


def versions() -> dict[str, str]:
    """Version of this package, of Python and of the packages that a result can depend on."""
    found = {"wsi_pipeline": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Operating system, processor, cores that this process may use, and GPUs."""
    from wsi_pipeline.inference.devices import gpu_names

    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "host": platform.node(),
        "cores": len(available_cores()),
        "gpus": gpu_names(),
    }
