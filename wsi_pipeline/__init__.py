"""Whole-slide images of breast tissue in, heatmaps of invasive ductal carcinoma out. For research use only."""

__version__ = "0.1.0"
