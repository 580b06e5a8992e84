"""Finished results in the forms of other programs: QuPath, Bio-Formats, OpenSlide, DICOM viewers, spreadsheets.

`export` reads finished result folders only and never changes them. Each format is one module, loaded when it is asked
for: what DICOM needs is an extra (``pip install "wsi-pipeline[dicom]"``).
"""

from wsi_pipeline.export.batch import Exported, ExportRecord, export
from wsi_pipeline.export.options import FORMATS, ExportOptions

__all__ = ["FORMATS", "ExportOptions", "ExportRecord", "Exported", "export"]
