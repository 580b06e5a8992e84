"""In which order blocks are read, and by whom: neighbours one after the other, each reader in a place of its own. Pure.

A native tile that reaches over the edge of a block is needed again by the block beside it. A reader keeps such tiles
for a while, so each is decoded once if its blocks are read soon after each other by the same reader. The Hilbert curve
(Hilbert 1891) passes all blocks of any neighbourhood, small or large, in one go; a piece of it is a compact area with
a short rim.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.grid import Block, Grid

PX_PER_READER = 64_000_000
"""A reader is worth starting for so many pixels: about half a second of decoding."""

MAX_READERS = 16

BLOCKS_AHEAD, FEWEST_AHEAD = 3, 2
"""Blocks that each reader may have on the way, the one it is reading among them; with fewer than the second, it would
wait for the network in between."""

MAX_BYTES_IN_FLIGHT = 1 << 30
"""Bound on the pixels on the way from all readers, whatever the memory."""

MEMORY_SHARE = 8
"""Of the memory, one part in so many is given to pixels on the way."""


def hilbert_index(row: NDArray[np.int64], col: NDArray[np.int64], order: int) -> NDArray[np.int64]:
    """Place of each (row, col) along the Hilbert curve that fills a square of ``2 ** order`` a side.

    Args:
        row: [n], 0 up to the square's side.
        col: [n], likewise.
        order: Of the curve; at most 31.

    Returns:
        int64 [n]: no two places alike; consecutive ones lie side by side.
    """
    x, y = np.array(col, np.int64), np.array(row, np.int64)
    place = np.zeros_like(x)
    for bit in range(order - 1, -1, -1):
        side = 1 << bit
        right, low = (x & side) > 0, (y & side) > 0
        place += (side * side) * ((3 * right) ^ low)
        # Each quarter holds the curve turned or mirrored.
        flip = ~low & right
        x, y = (
            np.where(flip, side - 1 - (x & (side - 1)), x & (side - 1)),
            np.where(flip, side - 1 - (y & (side - 1)), y & (side - 1)),
        )
        x, y = np.where(~low, y, x), np.where(~low, x, y)
    return place


def share_out(blocks: Sequence[Block], readers: int) -> list[list[Block]]:
    """A run of neighbouring blocks for each reader.

    Args:
        blocks: Those to read, in any order.
        readers: How many read.

    Returns:
        `readers` lists, fewer where there are fewer blocks; all of nearly the same length, the longer ones first.
    """
    if not blocks:
        return []
    index = np.array([block.index for block in blocks], np.int64)
    order = int(index.max()).bit_length()
    along = np.argsort(hilbert_index(index[:, 0], index[:, 1], order), kind="stable")
    parts = np.array_split(along, min(readers, len(blocks)))
    return [[blocks[n] for n in part] for part in parts]


def take_turns(strips: Sequence[Sequence[Block]]) -> list[Block]:
    """The strips in one list, a block of each in turn, so that item n belongs to reader ``n % len(strips)``."""
    longest = max(map(len, strips), default=0)
    return [strip[turn] for turn in range(longest) for strip in strips if turn < len(strip)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """How a slide is read."""

    count: int
    """Threads or processes that read."""
    processes: bool
    """Whether they are processes of their own."""
    ahead: int
    """Blocks that each may have on the way, the one it is reading among them."""


def choose_readers(
    grid: Grid, blocks: Sequence[Block], *, workers: int | None, cores: int, memory: int, processes: bool
) -> Readers:
    """How many readers a slide gets, so that their pixels fit in memory and each has enough to do.

    Args:
        grid: The cells.
        blocks: Those to read.
        workers: Processes that the user wants; 0 for none, which is one thread of this process; None to choose.
        cores: Cores that may be used.
        memory: Bytes that may be used.
        processes: Whether processes are to be chosen, as for a GPU that is faster than all readers together. Beside
            a network on the CPU, which is slower than one reader, a thread is enough and costs neither time to start
            nor memory.
    """
    boxes = [grid.block_box(block.cells) for block in blocks]
    areas = [box.width * box.height for box in boxes]
    room = max(1, int(min(MAX_BYTES_IN_FLIGHT, memory / MEMORY_SHARE) / (3 * max(areas, default=1))))
    if workers is not None:
        count = max(1, min(workers, len(blocks)))
    else:
        worth = -(-sum(areas) // PX_PER_READER)
        free = cores - 1 if processes else cores // 4
        count = max(1, min(worth, free, MAX_READERS, room // FEWEST_AHEAD, len(blocks)))
        processes = processes and worth > 1 and cores > 1
    ahead = max(1, min(BLOCKS_AHEAD, room // count))
    return Readers(count=count, processes=processes if workers is None else workers > 0, ahead=ahead)
