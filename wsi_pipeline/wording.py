"""Words around numbers."""


def counted(number: int, thing: str) -> str:
    """Such as ``1 case`` and ``1,234 cases``."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
