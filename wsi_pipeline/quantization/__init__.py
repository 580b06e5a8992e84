"""int8 networks: made from real patches, measured on other cases, and only then put beside the fp32 one."""

from wsi_pipeline.quantization.quantize import Quantized, quantize

__all__ = ["Quantized", "quantize"]
