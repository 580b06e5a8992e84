"""What a viewer may show, and to whom."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewerOptions:
    """Settings of a viewer."""

    host: str = "127.0.0.1"
    """Address it listens on; requests that name another host are refused."""
    token: str | None = None
    """What a client must show; None lets everyone in who reaches the address."""
    show_label: bool = False
    """Whether the picture of the slide's label, which may bear a patient's name, is given out."""
    slide_folders: tuple[Path, ...] = ()
    """Where slides are looked for that are no longer where the run found them."""
    tile_cache_bytes: int = 128 << 20
    """Bound on the encoded tiles that are kept."""
    map_cache_bytes: int = 512 << 20
    """Bound on the heatmaps that are kept, unpacked."""
    remote_slides: bool = False
    """Whether slides are opened on other machines, where a result says that it is of one there."""
    open_slides: int = 8
    """Bound on slides open at once, one for each thread that reads."""
    max_body_bytes: int = 8 << 20
    """Bound on what a client may send in one request."""
