"""Where the Python API is entered: what has to be a path is one, or is refused with the way to one."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import numpy as np
import onnx

from pascalc.al.plan import Plan
from pascalc.errors import CompileError


def entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a look at those of its arguments that are annotated as paths.

    Raises:
        CompileError: one of them is none; raised by the function that is returned.
    """
    signature = inspect.signature(function)
    annotations = {name: str(p.annotation) for name, p in signature.parameters.items()}
    paths = {name: text for name, text in annotations.items() if "Path" in text or text == "Network"}

    @wraps(function)
    def entered(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        for name in paths.keys() & given.keys():
            _check(name, given[name], paths[name])
        return function(*args, **kwargs)

    return entered


def _check(name: str, value: object, annotation: str) -> None:
    if (value is None and "None" in annotation) or (isinstance(value, Plan) and "Plan" in annotation):
        return
    several = "Sequence" in annotation
    if several and isinstance(value, Sequence) and not isinstance(value, str):
        wrong = [item for item in value if not _is_path(item)]
    else:
        wrong = [] if _is_path(value) and not several else [value]
    if wrong:
        kind = "a list of paths" if several else "a path"
        raise CompileError(f"'{name}' must be {kind}, not {type(wrong[0]).__name__}", hint=_way(wrong[0]))


def _is_path(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, os.PathLike) and isinstance(value.__fspath__(), str))


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
