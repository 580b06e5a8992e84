"""Words around numbers and names."""

from collections.abc import Sequence

NAMES_SHOWN = 3
"""Of many names, these many are said."""


def counted(number: int, thing: str) -> str:
    """Such as ``1 case`` and ``1,234 cases``."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def some_names(names: Sequence[str]) -> str:
    """The first few of many names, for a sentence."""
    shown = ", ".join(names[:NAMES_SHOWN])
    return f"{shown} and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else shown
