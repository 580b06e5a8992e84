"""What a person looks at: maps over the slide, and the tissue that was found. Pure but for the files.

Pictures are at most about 2,000 px, whatever the slide; numbers on them are those of the regions, never of pixels.
"""

from wsi_pipeline.render.maps import draw_overlay, draw_uncertainty
from wsi_pipeline.render.tissue import draw_tissue

__all__ = ["draw_overlay", "draw_tissue", "draw_uncertainty"]
