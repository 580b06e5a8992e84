"""A virtual environment for each peer, with its own packages but the present interpreter's PyTorch.

All programs then run their network on the same build of PyTorch, and its gigabytes are there once: each environment
has a ``.pth`` file that leads to a folder of links to torch, torchvision and the libraries that came with them. A
peer's own bound on the version of torch is passed over; the versions of everything are in the results.
"""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import distributions, requires
from pathlib import Path

from wsi_pipeline.files import make_folder, write_json

_TORCH = re.compile(r"(torch|torchvision|triton|nvidia[-_].*|cuda[-_].*|functorch|torchgen)$", re.IGNORECASE)
"""Distributions that are shared."""

_LIST = """
import importlib.metadata, json
print(json.dumps(importlib.metadata.requires({name!r}) or []))
"""

_VERSIONS = """
import importlib.metadata, json
print(json.dumps({d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A program that is measured beside this one."""

    name: str
    requirement: str
    more: tuple[str, ...] = ()
    """Further requirements, without which this version does not run."""


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            name="wsinfer",
            requirement="wsinfer==0.6.1",
            more=("zarr<3", "numcodecs<0.16", "tiffslide<3", "openslide-bin", "openslide-python"),
        ),
        Peer(name="tiatoolbox", requirement="tiatoolbox", more=("openslide-bin",)),
        Peer(name="lazyslide", requirement="lazyslide", more=("openslide-bin", "openslide-python")),
    )
}


def peer_python(work: Path, peer: Peer) -> Path:
    """The peer's interpreter; its environment is made where it is not there yet, which takes minutes.

    Raises:
        RuntimeError: where it cannot be installed, with the end of pip's own words.
    """
    folder = work / "venvs" / peer.name
    python, ready = folder / "bin" / "python", folder / "ready.json"
    if ready.exists():
        return python
    print(f"installing {peer.requirement} into {folder} …")
    make_folder(folder.parent)
    if not python.exists():
        _call([sys.executable, "-m", "venv", str(folder)])
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "torch_here.pth").write_text(f"{_torch_links(work / 'venvs' / 'torch-here')}\n")
    _install(python, peer)
    write_json(ready, _asked(python, _VERSIONS))
    return python


def peer_versions(work: Path, peer: Peer) -> dict[str, str]:
    """Versions of all that the peer's environment holds."""
    return dict(json.loads((work / "venvs" / peer.name / "ready.json").read_text()))


def _install(python: Path, peer: Peer) -> None:
    """The peer without what it asks of torch, then the rest of what it asks."""
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _call([*pip, "--no-deps", peer.requirement])
    name = re.split(r"[=<>\[]", peer.requirement)[0]
    asked = [*_asked(python, _LIST.format(name=name)), *(requires("torch") or ())]  # what torch needs is not linked
    asked = [line for line in asked if "extra ==" not in line]
    wanted = [line for line in asked if not _TORCH.match(re.split(r"[^\w.-]", line)[0])]
    _call([*pip, *wanted, *peer.more])


def _torch_links(folder: Path) -> Path:
    """A folder of links to what the present torch is made of."""
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    for found in distributions():
        name = found.metadata["Name"]
        if not _TORCH.match(name):
            continue
        tops = {Path(file).parts[0] for file in found.files or [] if not Path(file).is_absolute()}
        for top in sorted(tops - {"..", "__pycache__", "bin"}):
            source, link = Path(str(found.locate_file(top))), folder / top
            if not link.exists():
                link.symlink_to(source)
    return folder


def _asked(python: Path, program: str) -> "dict[str, str] | list[str]":
    found = subprocess.run([str(python), "-c", program], capture_output=True, text=True, check=True)
    answer: dict[str, str] | list[str] = json.loads(found.stdout)
    return answer


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])} … failed: {done.stderr.strip()[-800:]}")
