"""Networks in OpenVINO's form, kept from one run to the next.

To convert a network takes PyTorch, and seconds to import that. What was converted once is read again without.
"""

import logging
import os
import re
import shutil
import time
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from wsi_pipeline.inference.engines.openvino_engine import read
from wsi_pipeline.models.base import ModelBundle, file_sha256

if TYPE_CHECKING:
    from wsi_pipeline.inference.rewrite import SmallMaps

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "WSI_PIPELINE_CACHE"
"""Environment variable with the folder to keep them in; empty: nothing is kept."""

MOST_KEPT = 6
"""Networks (a ResNet-18 has 88 MB); the one that was not used for the longest time goes first."""

_GRAPH, _WEIGHTS, _DIGESTS = "network.xml", "network.bin", "network.sha256"
_PART, _PART_SECONDS = ".part-", 3600
"""Begins the name of what is being written; after so long, nobody is writing it any more."""

_NAME = re.compile("[0-9a-f]{40}")
_PACKAGE = Path(__file__).parents[2]


def open_converted(bundle: ModelBundle, small_maps: "SmallMaps", *, keep: bool) -> Any:
    """A bundle's network as ``openvino.Model``: as it was kept, or else converted now.

    Args:
        bundle: Its digest must be its own: by that, the card and this program's code a kept network is found.
        small_maps: How convolutions over small maps are written.
        keep: Look for a kept one, and keep what is converted. Where that cannot be done it is no error.

    Raises:
        BundleError: where weights and card do not fit each other.
        InferenceError: where the network does something that OpenVINO does not know.
    """
    kept = _place(bundle, small_maps) if keep else None
    found = _read(kept) if kept else None
    if found is None:
        from wsi_pipeline.inference.engines.to_openvino import convert

        found = convert(bundle, small_maps)
        if kept:
            _keep(found, kept)
    return found


def _place(bundle: ModelBundle, small_maps: str) -> Path | None:
    """Where this network is kept; None where none are, or a library does not say its version."""
    folder = _folder()
    try:
        return folder / _key(bundle, small_maps) if folder else None
    except PackageNotFoundError:
        return None


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
    try:
        if not kept.is_dir():
            return None
        if all((kept / name).exists() for name in (_GRAPH, _WEIGHTS, _DIGESTS)) and (
            _digests(kept) == (kept / _DIGESTS).read_text(encoding="ascii")
        ):
            with suppress(OSError):  # another user's
                os.utime(kept)
            return read(kept / _GRAPH)
        log.debug("%s is not as it was written, and is converted anew", kept)
        shutil.rmtree(kept, ignore_errors=True)
    except Exception:  # whatever it is, the network can be converted
        log.debug("%s cannot be read, and is converted anew", kept, exc_info=True)
    return None


def _keep(model: Any, kept: Path) -> None:
    """Write a network beside its place and put it there whole; what goes wrong costs the next run time and no more."""
    import openvino

    part = kept.with_name(f"{_PART}{uuid4().hex}")
    try:
        part.mkdir(parents=True)
        openvino.save_model(model, part / _GRAPH, compress_to_fp16=False)
        (part / _DIGESTS).write_text(_digests(part), encoding="ascii")
        part.replace(kept)
        _make_room(kept.parent)
    except Exception:  # the disk is full, the folder is another's, or another run was faster
        log.debug("%s was not kept", kept, exc_info=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _digests(folder: Path) -> str:
    """SHA-256 of a kept network's two files."""
    return " ".join(file_sha256(folder / name) for name in (_GRAPH, _WEIGHTS))


def _make_room(folder: Path) -> None:
    """Remove the oldest networks, and what killed runs left; nothing else that may lie there."""
    oldest_first = sorted(folder.iterdir(), key=lambda found: found.stat().st_mtime)
    networks = [found for found in oldest_first if _NAME.fullmatch(found.name) and (found / _DIGESTS).exists()]
    parts = [found for found in oldest_first if found.name.startswith(_PART)]
    left = [found for found in parts if time.time() - found.stat().st_mtime > _PART_SECONDS]
    for found in networks[:-MOST_KEPT] + left:
        shutil.rmtree(found, ignore_errors=True)
