"""From torch's network to OpenVINO's."""

import warnings
from typing import Any

import torch

from wsi_pipeline.inference.engines.openvino_engine import refusal
from wsi_pipeline.inference.fields import FieldNetwork


def convert(network: FieldNetwork, *, size_px: int) -> Any:
    """OpenVINO's form of a network: ``openvino.Model``, uint8 [any, size_px, size_px, 3] in, answers out.

    It goes straight through OpenVINO's reader of TorchScript: `openvino.convert_model` takes four times as long and
    reports its use to OpenVINO's makers.

    Raises:
        InferenceError: where the network does something that OpenVINO does not know.
    """
    import openvino
    from openvino import frontend
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    failures = (
        *(frontend.GeneralFailure, frontend.InitializationFailure, frontend.NotImplementedFailure),
        *(frontend.OpConversionFailure, frontend.OpValidationFailure),
    )
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
