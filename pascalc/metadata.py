"""What a compiled file says of itself, in its metadata: the keys, and typed readers that trust nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping

LEVELS = "pascalc.levels"
#: SHA-256 of the file that was compiled, and of the network at other levels that ``--save-ann`` wrote.
SOURCE_DIGEST, ANN_DIGEST = "pascalc.source_sha256", "pascalc.ann_sha256"


def recorded_levels(metadata: Mapping[str, str]) -> dict[str, int]:
    """The levels, by label, that a file says that it was compiled to; none where it says nothing readable."""
    try:
        levels = json.loads(metadata.get(LEVELS, "{}"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(levels, dict):
        return {}
    return {name: value for name, value in levels.items() if type(value) is int}


def source_is(metadata: Mapping[str, str], digest: str) -> bool | None:
    """Whether the file says that it was compiled from the file of this digest; None where it says nothing."""
    recorded = {metadata[key] for key in (SOURCE_DIGEST, ANN_DIGEST) if metadata.get(key)}
    return digest in recorded if recorded else None
