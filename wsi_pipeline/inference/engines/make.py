"""A bundle's network as the engine that was chosen."""

import logging
from pathlib import Path

from wsi_pipeline.config import EngineName, Precision
from wsi_pipeline.errors import BundleError, InferenceError
from wsi_pipeline.inference.devices import Device
from wsi_pipeline.inference.engines.base import Engine
from wsi_pipeline.inference.engines.choose import OPENVINO, Choice, choose_engine
from wsi_pipeline.models.base import ModelBundle

log = logging.getLogger(__name__)


def make_engine(
    bundle: ModelBundle,
    device: Device,
    *,
    engine: EngineName,
    precision: Precision,
    batch_size: int,
    keep: bool = False,
) -> Engine:
    """Load a bundle's network into an engine.

    Where ``auto`` means OpenVINO and that does not know something in the network, torch takes its place, in the same
    arithmetic: the engine that is given back says what it is, which need not be what `choose_engine` says.

    Args:
        bundle: The network.
        device: Where to.
        engine: Its name, or ``auto``.
        precision: What to round to, or ``auto``.
        batch_size: Fields of view in a batch.
        keep: What the engine makes of the network is kept for, and taken from, other runs.

    Raises:
        BundleError: where the weights do not fit their card, or there is no int8 network.
        ConfigError: where engine, precision and device do not go together, or OpenVINO is not installed.
        InferenceError: where the engine cannot take the network.
    """
    choice = choose_engine(engine, precision, device)
    try:
        return _make(bundle, device, choice, batch_size, keep=keep)
    except InferenceError as error:
        if engine != "auto" or choice.engine not in OPENVINO:
            raise
        log.info("%s; torch takes its place", error)
        choice = Choice(engine="torch", arithmetic=choice.arithmetic)
        return _make(bundle, device, choice, batch_size, keep=keep)


def _make(bundle: ModelBundle, device: Device, choice: Choice, batch_size: int, *, keep: bool) -> Engine:
    size = bundle.card.patch_size_px
    if choice.engine in OPENVINO:
        from wsi_pipeline.inference.engines.conversions import open_converted
        from wsi_pipeline.inference.engines.openvino_engine import OpenVinoEngine, read

        if choice.engine == "openvino-int8":
            model = read(_int8(bundle))
        else:
            model = open_converted(bundle, "winograd" if choice.arithmetic == "fp32" else "products", keep=keep)
        return OpenVinoEngine(model, arithmetic=choice.arithmetic, batch_size=batch_size, size_px=size)
    from wsi_pipeline.inference.engines.torch_engine import TorchEngine
    from wsi_pipeline.inference.fields import FieldNetwork

    network, compiled = FieldNetwork(bundle.build(), bundle.card).eval(), choice.engine == "compile"
    return TorchEngine(network, device, size_px=size, arithmetic=choice.arithmetic, compiled=compiled)


def _int8(bundle: ModelBundle) -> Path:
    if bundle.int8 is None:
        raise BundleError(
            bundle.path,
            "has no int8 network",
            "Make one: wsi-pipeline quantize --model BUNDLE --data DIR --out BUNDLE2, or take another engine.",
        )
    return bundle.int8
