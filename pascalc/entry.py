"""Where the Python API is entered: values are of the kind that they are annotated as, or are refused."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import onnx

from pascalc.al.plan import Plan
from pascalc.errors import CompileError

#: What a hint takes besides itself: NumPy's numbers, and whole ones as numbers. Never bool, but as itself.
_TAKES: dict[Any, tuple[type, ...]] = {
    int: (int, np.integer),
    float: (float, int, np.floating, np.integer),
    bool: (bool, np.bool_),
}
#: What hints are called in messages, one and several; a union goes by the first that it has.
_KINDS: dict[Any, tuple[str, str]] = {
    Path: ("a path", "paths"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "True or False"),
    str: ("text", "texts"),
}


def entry(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function by its public name, with a look at its arguments; NumPy's numbers become Python's.

    Raises:
        CompileError: one is not of the kind that it is annotated as; raised by the function that is returned.
        TypeError: as Python raises it, for a call that does not fit the function; likewise.
    """
    signature = inspect.signature(function)
    hints = {parameter: hint for parameter, hint in get_type_hints(function).items() if parameter != "return"}

    @wraps(function)
    def entered(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            verb = "" if str(error).startswith(("got", "missing")) else "got "
            raise TypeError(f"{name}() {verb}{error}") from None
        for parameter, value in given.arguments.items():
            _check(parameter, value, _alternatives(hints[parameter]))
            given.arguments[parameter] = _plain(value)
        return function(*given.args, **given.kwargs)

    return entered


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The hints of a union, or the one."""
    return get_args(hint) if isinstance(hint, UnionType) else (hint,)


def _check(name: str, value: object, hints: Sequence[Any]) -> None:
    if any(get_origin(hint) is Mapping for hint in hints) or _fits(value, hints):
        return  # who reads a mapping judges what is in it
    items = next((_alternatives(*get_args(hint)) for hint in hints if get_origin(hint) is Sequence), None)
    if items is None:
        raise _refusal(name, _kind(hints, 0), value, hints)
    wrong = value
    if isinstance(value, Sequence) and not isinstance(value, str):
        wrong = next(item for item in value if not _fits(item, items))
    raise _refusal(name, f"a list of {_kind(items, 1)}", wrong, items)


def _fits(value: object, hints: Sequence[Any]) -> bool:
    return any(_is(value, hint) for hint in hints)


def _is(value: object, hint: Any) -> bool:
    """Whether a value is what one hint says."""
    if hint is Path:
        return isinstance(value, os.PathLike) and isinstance(value.__fspath__(), str)
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if get_origin(hint) is Sequence:
        items = _alternatives(*get_args(hint))
        return isinstance(value, Sequence) and not isinstance(value, str) and all(_fits(x, items) for x in value)
    if isinstance(value, bool) and hint is not bool:
        return False
    return isinstance(value, _TAKES.get(hint, get_origin(hint) or hint))


def _kind(hints: Sequence[Any], number: int) -> str:
    """What a value should have been, in words."""
    known = [kind for kind in _KINDS if kind in hints]
    if known:
        return _KINDS[known[0]][number]
    if get_origin(hints[0]) is Literal:
        return " or ".join(map(repr, get_args(hints[0])))
    return "a function" if get_origin(hints[0]) is Callable else f"a {hints[0].__name__}"


def _refusal(name: str, kind: str, value: object, hints: Sequence[Any]) -> CompileError:
    hint = _way(value) if Path in hints else ""
    return CompileError(f"'{name}' must be {kind}, not {type(value).__name__}", hint=hint)


def _plain(value: Any) -> Any:
    """The value with NumPy's scalars as Python's."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _way(value: object) -> str:
    """The way from what was given to a file."""
    if isinstance(value, onnx.ModelProto):
        return "Save the model first: onnx.save(model, 'model.onnx')."
    if isinstance(getattr(value, "plan", value), Plan):
        return "Write the plan to a file first: pathlib.Path('plan.json').write_text(plan.to_json())."
    if hasattr(value, "state_dict"):
        return "Export the model first: pascalc.train.export(model, sample, 'model.onnx')."
    if isinstance(value, np.ndarray | Mapping | list | tuple) or hasattr(value, "__array__"):
        return "Write an .npz first: numpy.savez('data.npz', x=images, y=labels)."
    return "Give the name of a file, as text or a pathlib.Path."
