"""Patches that cannot be read, told all at once."""

from collections.abc import Mapping

from wsi_pipeline.errors import DatasetError

NAMES_TOLD = 5
"""Of many unreadable patches, these many are named."""


def all_in_one(root: str, errors: Mapping[str, DatasetError], tried: int) -> DatasetError:
    """One error for all patches that cannot be read, so that whoever mends them need not find them one by one.

    Args:
        root: Of the data set.
        errors: Of each patch by its name, at least one; where it is the only one, it is given back as it is.
        tried: How many patches were looked at.
    """
    first = next(iter(errors.values()))
    if len(errors) == 1:
        return first
    told = [f"{name} ({error.why})" for name, error in errors.items()][:NAMES_TOLD]
    more = f", and {len(errors) - len(told):,} more" if len(errors) > len(told) else ""
    return DatasetError(
        root, f"{len(errors):,} of {tried:,} patches cannot be used: {', '.join(told)}{more}", first.hint
    )
