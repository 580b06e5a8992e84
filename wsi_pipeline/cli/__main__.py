"""``python -m wsi_pipeline.cli``."""

import sys

from wsi_pipeline.cli import main

if __name__ == "__main__":
    sys.exit(main())
