"""Post-training quantisation by NNCF (https://github.com/openvinotoolkit/nncf), into OpenVINO's own files."""

import logging
import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ConfigError, InferenceError
from wsi_pipeline.files import atomic_path
from wsi_pipeline.inference.engines.choose import INSTALL
from wsi_pipeline.inference.engines.to_openvino import convert
from wsi_pipeline.models.base import file_sha256
from wsi_pipeline.models.bundle import ModelBundle
from wsi_pipeline.models.card import Quantization


def require_packages() -> None:
    """Refuse to start without OpenVINO and NNCF.

    Raises:
        ConfigError: naming the one that is missing.
    """
    for name in ("openvino", "nncf"):
        if find_spec(name) is None:
            raise ConfigError("quantize", f"needs the package {name}, which is not installed", INSTALL)


def to_int8(bundle: ModelBundle, patches: NDArray[np.uint8]) -> Any:
    """The bundle's network with int8 weights and activations: ``openvino.Model``.

    Weights are quantised channel by channel, activations layer by layer, and the biases corrected for the mean error
    (Nagel et al. 2019). Ranges reach from the least to the greatest activation seen: NNCF's own choice, the mean of
    each patch's extremes, cuts off the darkest nuclei and cost five times as much. Normalisation stays in fp32, inside
    the graph.

    Args:
        bundle: An ordinary one or an ensemble.
        patches: uint8 [n, size_px, size_px, 3] such as the network will see.

    Raises:
        InferenceError: where OpenVINO cannot take the network, or NNCF not quantise it.
    """
    os.environ.setdefault("NNCF_CI", "1")  # else it reports its use to its makers
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # says that there is no GPU
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    # Not by nncf.set_log_level: that also raises the level of handlers that are not its own.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = convert(bundle, "products")
    data = nncf.Dataset([patch[None] for patch in patches])
    ranges = AdvancedQuantizationParameters(activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX)
    try:
        return nncf.quantize(
            model,
            data,
            subset_size=len(patches),
            preset=nncf.QuantizationPreset.MIXED,
            advanced_parameters=ranges,
        )
    except (RuntimeError, nncf.ValidationError, nncf.UnsupportedModelError) as error:
        raise InferenceError(bundle.path, f"cannot be quantised ({error})", "Use it in fp32.") from error


def save_int8(model: Any, folder: Path) -> Quantization:
    """Write the network into a bundle's folder, and say what stands on its card.

    Raises:
        OutputError: where it cannot be written.
    """
    import openvino

    file = folder / Quantization.model_fields["file"].default
    with TemporaryDirectory() as scratch:
        made = Path(scratch) / file.name
        # Biases and scales stay fp32: what is written is what was measured.
        openvino.save_model(model, made, compress_to_fp16=False)
        for suffix in (".bin", ".xml"):
            with atomic_path(file.with_suffix(suffix)) as part:
                copyfile(made.with_suffix(suffix), part)
    return Quantization(sha256=file_sha256(file), weights_sha256=file_sha256(file.with_suffix(".bin")))


def packages() -> dict[str, str]:
    """Versions of what quantised, for the card."""
    return {name: version(name) for name in ("openvino", "nncf")}
