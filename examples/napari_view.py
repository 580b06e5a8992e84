"""Look at a result in napari: the slide, the map over it, the regions, all in their places.

    pip install "wsi-pipeline[napari]"
    python examples/napari_view.py RESULTS/SLIDE [--threshold 0.5] [--screenshot picture.png]

What this shows is for research use only.
"""

import argparse
from pathlib import Path

import napari

from wsi_pipeline.napari_layers import add_result


def main() -> None:
    """Open a result; with --screenshot, write a picture of it and leave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a slide's result folder")
    parser.add_argument("--threshold", type=float, help="probability from which a cell is in a region")
    parser.add_argument("--screenshot", type=Path, help="write a picture and leave")
    args = parser.parse_args()

    viewer = napari.Viewer(title=f"{args.folder.name} - for research use only")
    add_result(viewer, args.folder, threshold=args.threshold)
    viewer.reset_view()
    if args.screenshot:
        viewer.screenshot(str(args.screenshot), canvas_only=True, flash=False)
        viewer.close()
        return
    napari.run()


if __name__ == "__main__":
    main()
