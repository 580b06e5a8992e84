"""Pictures that occur more than once, told by their content."""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b

from tqdm import tqdm

from wsi_pipeline.datasets.store import PatchStore


def first_alike(store: PatchStore, names: Sequence[str]) -> dict[str, str]:
    """For each file the first of those with the same bytes; for most files that is the file itself.

    Only files that a quick checksum finds alike are read as a whole.

    Raises:
        DatasetError: naming the file that cannot be read.
    """
    alike: dict[tuple[int, int], list[str]] = defaultdict(list)
    for name in tqdm(names, desc="duplicates", unit="patch", disable=None, leave=False):
        alike[store.checksum(name)].append(name)
    first: dict[str, str] = {}
    for members in alike.values():
        by_content: dict[bytes, str] = {}
        for name in members:
            key = blake2b(store.read(name), digest_size=16).digest() if len(members) > 1 else b""
            first[name] = by_content.setdefault(key, name)
    return first
