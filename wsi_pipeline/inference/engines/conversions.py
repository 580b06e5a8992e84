"""Networks in OpenVINO's form, kept from one run to the next.

To convert a network takes PyTorch, and seconds to import that. What was converted once is read again without.
"""

import logging
import os
import shutil
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from wsi_pipeline.inference.engines.openvino_engine import read
from wsi_pipeline.models.base import ModelBundle, file_sha256

if TYPE_CHECKING:
    from wsi_pipeline.inference.rewrite import SmallMaps

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "WSI_PIPELINE_CACHE"
"""Environment variable with the folder to keep them in; empty: nothing is kept."""

MOST_KEPT = 6
"""Networks (a ResNet-18 has 88 MB); the one that was not used for the longest time goes first."""

_GRAPH, _WEIGHTS, _DIGEST = "network.xml", "network.bin", "network.sha256"
_PACKAGE = Path(__file__).parents[2]


def open_converted(bundle: ModelBundle, small_maps: "SmallMaps") -> Any:
    """A bundle's network as ``openvino.Model``: as it was kept, or else converted now, and kept.

    Where nothing can be kept it is converted each time; that is no error.

    Args:
        bundle: Its digest must be its own: by that, the card and this program's code a kept network is found.
        small_maps: How convolutions over small maps are written.

    Raises:
        BundleError: where weights and card do not fit each other.
        InferenceError: where the network does something that OpenVINO does not know.
    """
    place = _folder()
    kept = place / _key(bundle, small_maps) if place else None
    found = _read(kept) if kept else None
    if found is None:
        from wsi_pipeline.inference.engines.to_openvino import convert
        from wsi_pipeline.inference.fields import FieldNetwork

        found = convert(FieldNetwork(bundle.build(), bundle.card, small_maps).eval(), size_px=bundle.card.patch_size_px)
        if kept:
            _keep(found, kept)
    return found


def _folder() -> Path | None:
    given = os.environ.get(FOLDER_VARIABLE)
    if given is not None:
        return Path(given).absolute() / "networks" if given else None
    from platformdirs import user_cache_path

    return user_cache_path("wsi-pipeline", appauthor=False) / "networks"


def _key(bundle: ModelBundle, small_maps: str) -> str:
    """Changes with all that the converted network depends on, this program's code for networks included."""
    code = sorted(file for part in ("inference", "models") for file in (_PACKAGE / part).rglob("*.py"))
    parts = [bundle.digest, bundle.card.model_dump_json(), small_maps, version("openvino"), version("torch")]
    return sha256("\n".join(parts).encode() + b"".join(file.read_bytes() for file in code)).hexdigest()[:40]


def _read(kept: Path) -> Any | None:
    """A kept network; None where there is none, or it is not as it was written."""
    if not kept.exists():
        return None
    try:
        if _digests(kept) == (kept / _DIGEST).read_text(encoding="ascii"):
            os.utime(kept)
            return read(kept / _GRAPH)
    except Exception:  # whatever it is, the network can be converted anew
        log.debug("%s cannot be read", kept, exc_info=True)
    log.debug("%s is not as it was written, and is converted anew", kept)
    shutil.rmtree(kept, ignore_errors=True)
    return None


def _keep(model: Any, kept: Path) -> None:
    """Write a network beside its place and put it there whole; what goes wrong costs the next run time and no more."""
    import openvino

    part: Path | None = None
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = Path(mkdtemp(prefix=".part-", dir=kept.parent))
        openvino.save_model(model, part / _GRAPH, compress_to_fp16=False)
        (part / _DIGEST).write_text(_digests(part), encoding="ascii")
        part.replace(kept)
        _make_room(kept.parent)
    except Exception:  # the disk is full, the folder is another's, or another run was faster
        log.debug("%s was not kept", kept, exc_info=True)
    finally:
        if part is not None:
            shutil.rmtree(part, ignore_errors=True)


def _digests(folder: Path) -> str:
    """SHA-256 of a kept network's two files."""
    return " ".join(file_sha256(folder / name) for name in (_GRAPH, _WEIGHTS))


def _make_room(folder: Path) -> None:
    oldest_first = sorted(folder.iterdir(), key=lambda kept: kept.stat().st_mtime)
    for kept in oldest_first[:-MOST_KEPT]:
        shutil.rmtree(kept, ignore_errors=True)
