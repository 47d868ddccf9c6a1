"""The neurons as Python custom operators of onnxruntime, by way of onnxruntime-extensions.

onnxruntime-extensions keeps one handler for all Python operators of the process. As shipped it returns results through
Python lists, 70 to 240 ns an element. The handler installed here returns the kernel's array, which the library copies
as it is, and passes operators that are not ours on to the shipped one.

What the library does around a kernel (onnxruntime-extensions 0.15):

- inputs are fresh copies, owned by the kernel, made with the interpreter lock held; the output is copied once more;
- attributes arrive as text, and floats are rounded to six significant digits in it, so that a session that knows its
  model hands phi over in the :class:`Recording`;
- an exception that leaves the handler ends the process, and an array of another dtype, layout or size than declared
  is copied as if it were right.

So every exception is caught here and kept in the :class:`Recording` of the running thread, and every output is
checked. onnxruntime calls the kernels on the thread that called ``run``, unless its execution mode is parallel.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from pascalc.errors import CompileError
from pascalc.ops import DOMAIN, Operator
from pascalc.runtime.kernels import KERNELS, Events, FloatArray, Kernel


@dataclass
class Recording:
    """What the kernels of one run are asked for, and what they leave behind.

    Attributes:
        phi: by label, the exact phi of the neurons.
        staged: run neurons step by step, and count their events, instead of in closed form.
        events: by label, the events of the neurons that ran step by step.
        error: the first exception of a kernel; the kernels after it give zeros.
        label: the label of the neuron that raised it.
    """

    phi: Mapping[str, float] = field(default_factory=dict)
    staged: bool = False
    events: dict[str, Events] = field(default_factory=dict)
    error: BaseException | None = None
    label: str = ""

    def raise_error(self) -> None:
        """Raises the kept error: a CompileError that names the neuron, or as it is if it is no ``Exception``."""
        if isinstance(self.error, Exception):
            raise CompileError(f"the neuron cannot be computed: {self.error}", node=self.label) from self.error
        if self.error is not None:
            raise self.error


_active = threading.local()


@contextmanager
def recording(record: Recording) -> Iterator[None]:
    """Kernels that run on this thread inside the ``with`` block report to ``record``."""
    before = getattr(_active, "record", None)
    _active.record = record
    try:
        yield
    finally:
        _active.record = before


#: The registered operators, by the id that the library knows them by.
_registered: dict[int, Kernel] = {}

_registration, _importing = threading.Lock(), threading.Lock()


_PROTOBUF = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"


def extensions() -> Any:
    """The module onnxruntime_extensions. It imports torch where that is installed: seconds that native kernels need not
    wait. And it has all processes that are started from now on read ONNX files with protobuf in Python, ten times
    slower, which is undone here."""
    with _importing:
        before = os.environ.get(_PROTOBUF)
        import onnxruntime_extensions

        if before is None:
            os.environ.pop(_PROTOBUF, None)
        else:
            os.environ[_PROTOBUF] = before
    return onnxruntime_extensions


def register() -> str:
    """Registers the neurons' kernels with onnxruntime-extensions, once a process.

    Returns:
        The path of the library, for ``SessionOptions.register_custom_ops_library``.
    """
    library = extensions()
    PyCustomOpDef = library.PyCustomOpDef
    types = {"int": PyCustomOpDef.dt_int64, "float": PyCustomOpDef.dt_float, "string": PyCustomOpDef.dt_string}
    with _registration:
        if not _registered:
            for kernel in KERNELS.values():
                operator = kernel.operator
                definition = library.onnx_op(
                    op_type=f"{DOMAIN}::{operator.name}",
                    inputs=[PyCustomOpDef.dt_float] * len(operator.inputs),
                    outputs=[PyCustomOpDef.dt_float] * len(operator.outputs),
                    attrs={attribute.name: types[attribute.type] for attribute in operator.attributes},
                )(partial(_as_shipped, kernel))
                _registered[id(definition)] = kernel
            PyCustomOpDef.install_hooker(_handle)
    return str(library.get_library_path())


def _handle(operator_id: int, feeds: list[Any], attributes: dict[str, str]) -> tuple[Any, ...]:
    """The handler of all Python operators: our kernels, guarded, and the rest as the library ships it."""
    if operator_id not in _registered:
        return extensions()._ocos._on_pyop_invocation(operator_id, feeds, attributes)  # type: ignore[no-any-return]
    y = _guarded(_registered[operator_id], feeds, attributes)
    return operator_id, y.shape, y


def _as_shipped(kernel: Kernel, *feeds: Any, **attributes: Any) -> FloatArray:
    """A kernel as the shipped handler calls it: slower, and what runs if somebody puts that handler back."""
    return _guarded(kernel, feeds, attributes)


def _guarded(kernel: Kernel, feeds: Sequence[Any], texts: Mapping[str, Any]) -> FloatArray:
    """Runs a kernel; never raises. After an error the result is zeros, or NaN where nobody could raise the error."""
    record: Recording | None = getattr(_active, "record", None)
    shape = _output_shape(feeds[0].shape, texts)
    try:
        run = record or Recording()
        if run.error is None:
            return _checked(_computed(kernel, feeds, _parsed(kernel.operator, texts, run), run), shape)
    except BaseException as error:
        if record is not None:
            record.error, record.label = error, texts["label"]
        else:
            with suppress(Exception):
                print(
                    f"{kernel.operator.name} '{texts['label']}' gives NaN, because its kernel raised:", file=sys.stderr
                )
                traceback.print_exception(error)
    try:
        return np.full(shape, np.nan if record is None else 0, np.float32)
    except (MemoryError, ValueError):  # larger than memory, or than any array
        return np.empty((0,) * len(shape), np.float32)


def _computed(
    kernel: Kernel, feeds: Sequence[FloatArray], attributes: Mapping[str, Any], record: Recording
) -> FloatArray:
    """What the kernel gives, in closed form or step by step, as the record asks for."""
    options = {name: attributes[name] for name in kernel.attributes}
    if not record.staged or kernel.staged is None:
        return kernel.run(*feeds, **options)
    train, events = kernel.staged(*feeds, **options)
    label = attributes["label"]
    record.events[label] = record.events.get(label, Events()) + events
    return train


def _output_shape(shape: tuple[int, ...], texts: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of a neuron's output, by the shape of X and its attributes, whether they make sense or not."""
    steps_in, steps_out = max(1, int(texts.get("steps_in", 1))), max(0, int(texts.get("steps_out", 1)))
    return (*(rows // steps_in * steps_out for rows in shape[:1]), *shape[1:])


def _parsed(operator: Operator, texts: Mapping[str, Any], record: Recording) -> dict[str, Any]:
    """Attributes in their types, phi as exact as it is known."""
    types = {"int": int, "float": float, "string": str}
    values = {attribute.name: types[attribute.type](texts[attribute.name]) for attribute in operator.attributes}
    values["phi"] = record.phi.get(texts["label"], values["phi"])
    return values


def _checked(y: Any, shape: tuple[int, ...]) -> FloatArray:
    """A kernel's result, if the library can copy it as it is."""
    if not isinstance(y, np.ndarray) or y.dtype != np.float32 or not y.flags.c_contiguous or y.shape != shape:
        found = f"{y.dtype} {list(y.shape)}" if isinstance(y, np.ndarray) else type(y).__name__
        raise TypeError(f"a kernel must return a C-contiguous float32 {list(shape)}, not {found}")
    return y
