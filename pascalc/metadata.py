"""What a compiled file says of itself, in its metadata: the keys, and typed readers that trust nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

LEVELS, NOT_SPIKING = "pascalc.levels", "pascalc.not_spiking"
#: How shifts and thresholds were changed; only in a file of which they were.
CORRECTION = "pascalc.correction"
#: The file that was compiled, its SHA-256, and that of the network at other levels that ``--save-ann`` wrote.
SOURCE_NAME, SOURCE_DIGEST, ANN_DIGEST = "pascalc.source", "pascalc.source_sha256", "pascalc.ann_sha256"


def recorded_levels(metadata: Mapping[str, str]) -> dict[str, int]:
    """The levels, by label, that a file says that it was compiled to; none where it says nothing readable."""
    levels = _entry(metadata, LEVELS)
    return {name: value for name, value in levels.items() if type(value) is int} if isinstance(levels, dict) else {}


def recorded_not_spiking(metadata: Mapping[str, str]) -> list[str]:
    """What a file says is computed and does not spike, a line each; nothing where it says nothing readable."""
    lines = _entry(metadata, NOT_SPIKING)
    return [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []


def recorded_correction(metadata: Mapping[str, str]) -> str:
    """How a file says that its network was corrected (`pascalc.planning.correction`); empty where it was not."""
    return metadata.get(CORRECTION, "")


def source_is(metadata: Mapping[str, str], digest: str) -> bool | None:
    """Whether the file says that it was compiled from the file of this digest; None where it says nothing."""
    recorded = {metadata[key] for key in (SOURCE_DIGEST, ANN_DIGEST) if metadata.get(key)}
    return digest in recorded if recorded else None


def ann_is(metadata: Mapping[str, str], digest: str) -> bool:
    """Whether the file says that the network of this digest, which ``--save-ann`` wrote, is what it was made from."""
    return metadata.get(ANN_DIGEST) == digest


def _entry(metadata: Mapping[str, str], key: str) -> object:
    """The JSON of an entry; None where there is none."""
    try:
        return read_json(metadata.get(key, "null"))
    except ValueError:
        return None


def read_json(text: str, constant: Callable[[str], Any] | None = None) -> Any:
    """JSON that anybody may have written: nested as deep as they like, with fields that come twice.

    Args:
        text: the JSON text.
        constant: called with NaN, Infinity and -Infinity, which are not JSON; by default they are floats.

    Raises:
        ValueError: it is not JSON, nested too deeply, or repeats a field of an object.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        times = Counter(name for name, _ in pairs)
        raise ValueError(f"it repeats the field {max(times, key=lambda name: times[name])!r} in one object")
    return fields
