"""From torch's network to OpenVINO's."""

import warnings
from typing import Any

import torch

from wsi_pipeline.inference.engines.openvino_engine import refusal
from wsi_pipeline.inference.fields import FieldNetwork
from wsi_pipeline.inference.rewrite import SmallMaps
from wsi_pipeline.models.base import ModelBundle


def convert(bundle: ModelBundle, small_maps: SmallMaps) -> Any:
    """OpenVINO's form of a bundle's network: ``openvino.Model``, uint8 [any, size_px, size_px, 3] in, answers out.

    It goes straight through OpenVINO's reader of TorchScript: `openvino.convert_model` takes four times as long and
    reports its use to OpenVINO's makers.

    Args:
        bundle: The network.
        small_maps: How convolutions over small maps are written.

    Raises:
        BundleError: where weights and card do not fit each other.
        InferenceError: where the network does something that OpenVINO does not know.
    """
    import openvino
    from openvino import frontend
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    failures = (
        *(frontend.GeneralFailure, frontend.InitializationFailure, frontend.NotImplementedFailure),
        *(frontend.OpConversionFailure, frontend.OpValidationFailure),
    )
    network, size_px = FieldNetwork(bundle.build(), bundle.card, small_maps).eval(), bundle.card.patch_size_px
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # torch would rather have its own exporter used
            decoder = TorchScriptPythonDecoder(
                network,
                example_input=(torch.zeros(2, size_px, size_px, 3, dtype=torch.uint8),),
                trace_kwargs={"check_trace": False},  # a second run, and more than a second of imports for it
            )
        reader = frontend.FrontEndManager().load_by_framework("pytorch")
        model = reader.convert(reader.load(decoder))
        fields = model.inputs[0].get_node()
        fields.set_element_type(openvino.Type.u8)
        fields.set_partial_shape(openvino.PartialShape([-1, size_px, size_px, 3]))
        model.validate_nodes_and_infer_types()
    except (RuntimeError, *failures) as error:
        raise refusal(error) from error
    return model
