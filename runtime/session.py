"""Running a spiking network in onnxruntime, with native or NumPy kernels, and looking at its spikes."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
import onnxruntime.capi.onnxruntime_pybind11_state as bindings
from numpy.typing import NDArray

from pascalc.errors import CompileError
from pascalc.ops import DOMAIN, MULTI_THRESHOLD, OPERATORS
from pascalc.runtime.kernels import Events
from pascalc.runtime.register import Recording, recording, register

Array = NDArray[Any]

#: What onnxruntime raises on a model that it cannot load or run: its own classes, which have no common one, and those
#: that its bindings make of C++'s.
RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    *(v for v in vars(bindings).values() if isinstance(v, type) and issubclass(v, Exception)),
    *(MemoryError, RuntimeError, TypeError, ValueError),
)

#: Optimizers of onnxruntime that are wrong: the first makes -inf of the zeros of a Pad in front of a MaxPool, the
#: second loses what feeds a MatMul and something else, if a BatchNormalization follows.
_WRONG_OPTIMIZERS = ("Pad_Fusion", "MatMul_BatchNormalization_Fusion")
_EXTERNAL_DATA = "session.model_external_initializers_file_folder_path"


def session_options(*, threads: int | None = None) -> ort.SessionOptions:
    """Options for an onnxruntime session of your own whose neurons run on the NumPy kernels.

    Two things differ from :class:`InferenceSession`. A kernel cannot raise from inside onnxruntime: its error is
    printed on stderr and the neuron's output is NaN. And phi reaches the kernel rounded to six significant digits,
    which changes nothing for values such as 0.5.

    Args:
        threads: threads of onnxruntime's own kernels; by default one for each core.
    """
    options = _options(threads)
    options.register_custom_ops_library(register())
    return options


def _options(threads: int | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    # its threads would spin on after a run, in the way of whatever runs next: another session, as in verification
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


@dataclass(frozen=True)
class _Neuron:
    """A neuron node: how to name its output, and how to read it."""

    label: str
    output: str
    inputs: list[str]
    operator: str
    levels: int
    phi: float
    steps_out: int | None


class InferenceSession:
    """A network in onnxruntime, on the CPU.

    Args:
        model: the path of an ONNX file, or the bytes of one.
        kernels: "native" runs the neurons' function bodies on onnxruntime's own kernels, multi-threaded, without any
            library; "numpy" runs the NumPy kernels through the custom-op library. For the same currents both give the
            same bits. Around native neurons onnxruntime may fold threshold/L or L/threshold into the linear layer
            beside them, whose results are then rounded in another way.
        staged: run the neurons step by step and count their events; with NumPy kernels only. The closed form, which
            is the default, cannot know them.
        threads: threads of onnxruntime's own kernels; by default one for each core.
        optimised: let onnxruntime fuse and rearrange operators, as it does by default; without, a network adds in
            another order here and there.
        stock: leave onnxruntime as it comes, with the optimisers that are wrong for some networks (by default they are
            left out, and quantisers are computed as they are written).
        folder: where the external data of a model given as bytes lies.

    Sessions may run in several Python threads at a time, also one session.

    Raises:
        CompileError: the file cannot be read, is no valid ONNX, or uses an operator that onnxruntime lacks; or, with
            NumPy kernels, several neurons have one label.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        kernels: Literal["native", "numpy"] = "native",
        *,
        staged: bool = False,
        threads: int | None = None,
        optimised: bool = True,
        stock: bool = False,
        folder: Path | None = None,
    ) -> None:
        if kernels not in ("native", "numpy"):
            raise CompileError(f"kernels must be 'native' or 'numpy', not {kernels!r}")
        if staged and kernels == "native":
            raise CompileError("native kernels do not run step by step", hint="Ask for kernels='numpy'.")
        self._model = model if isinstance(model, bytes) else Path(model)
        self._kernels = kernels
        self._staged = staged
        self._threads = threads
        self._optimised = optimised
        self._stock = stock
        self._folder = folder
        self._events: dict[str, Events] = {}
        self._lock = threading.Lock()
        self._session = self._open_first()
        self._phi = {neuron.label: neuron.phi for neuron in self._neurons.values()} if kernels == "numpy" else {}

    @property
    def inputs(self) -> list[ort.NodeArg]:
        """The network's inputs, each with ``name``, ``shape`` and ``type``."""
        return list(self._session.get_inputs())

    @property
    def outputs(self) -> list[ort.NodeArg]:
        """The network's outputs, each with ``name``, ``shape`` and ``type``."""
        return list(self._session.get_outputs())

    @property
    def events(self) -> dict[str, Events]:
        """By neuron, the events of all :meth:`run` and :meth:`trace` calls so far; empty unless ``staged``."""
        with self._lock:
            return dict(self._events)

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
        """Runs the network.

        Args:
            output_names: the outputs wanted; None for all.
            feeds: an array for every input name.

        Raises:
            CompileError: the feeds do not fit the inputs, or a neuron cannot be computed; it is named.
        """
        return self._run(self._session, output_names, feeds)

    def trace(self, feeds: Mapping[str, Array], names: Sequence[str] | None = None) -> dict[str, Array]:
        """Runs the network and gives what its neurons sent, by label.

        Args:
            feeds: an array for every input name.
            names: the labels of the neurons wanted; None for all.

        Returns:
            For a neuron with time steps its spike train, int8 ``[steps_out, N, d...]``: 1 (or -1, for neuron models
            that send negative spikes) where it spikes, else 0. For an activation its levels, int32
            ``[N, d...]``, with -1 where it is NaN.

        Raises:
            CompileError: as :meth:`run`; or a name is that of no neuron, or of several.
        """
        wanted = list(self._neurons) if names is None else list(names)
        for name in wanted:
            if name not in self._neurons:
                raise CompileError(
                    "there is no such neuron", node=name, file=self._file, hint=f"There are {', '.join(self._neurons)}."
                )
        if not wanted:
            return {}
        chosen = [self._neurons[name] for name in wanted]
        fetches = list(dict.fromkeys(tensor for neuron in chosen for tensor in _tensors(neuron)))
        values = dict(zip(fetches, self._run(self._traced, fetches, feeds), strict=True))
        return {neuron.label: _spikes(neuron, values) for neuron in chosen}

    @property
    def _file(self) -> Path | None:
        return None if isinstance(self._model, bytes) else self._model

    def _open_first(self) -> ort.InferenceSession:
        """A session on the model as it is."""
        if isinstance(self._model, bytes):
            return self._open(self._model, self._folder)
        if _is_utf8(self._model):
            return self._open(os.fspath(self._model))
        return self._open(self._bytes(), self._model.parent)  # onnxruntime takes no such path

    def _open(self, model: str | bytes, folder: Path | None = None) -> ort.InferenceSession:
        """A session on the model. ``folder`` holds the external data of a model given as bytes."""
        options = session_options(threads=self._threads) if self._kernels == "numpy" else _options(self._threads)
        options.log_severity_level = 4  # its errors become exceptions here
        if not self._stock:  # quantisers are computed as they are written, not by integer kernels that round elsewhere
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        if not self._optimised:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if folder is not None and _is_utf8(folder):
            options.add_session_config_entry(_EXTERNAL_DATA, os.fspath(folder))
        try:
            left_out = None if self._stock else _WRONG_OPTIMIZERS
            return ort.InferenceSession(
                model, options, providers=["CPUExecutionProvider"], disabled_optimizers=left_out
            )
        except RUNTIME_ERRORS as error:
            typed = "tensor(double)" in str(error) and any(f"({name})" in str(error) for name in OPERATORS)
            if self._kernels == "numpy" and typed:
                raise CompileError(
                    "the network computes in float64, which the NumPy kernels of neurons do not know",
                    file=self._file,
                    hint="Native kernels run it: `eval` without --kernels numpy, `report` without data.",
                ) from error
            message = f"onnxruntime cannot load the model: {_message(error)}"
            lacks_body = self._kernels == "native" and "is not a registered function/op" in message
            hint = "Where the file has no function body for a neuron, kernels='numpy' runs it." if lacks_body else ""
            raise CompileError(message, file=self._file, hint=hint) from error

    def _run(
        self, session: ort.InferenceSession, output_names: Sequence[str] | None, feeds: Mapping[str, Array]
    ) -> list[Array]:
        record = Recording(phi=self._phi, staged=self._staged)
        try:
            with recording(record):
                outputs: list[Array] = session.run(output_names, dict(feeds))
        except RUNTIME_ERRORS as error:
            record.raise_error()
            raise CompileError(f"onnxruntime cannot run the model: {_message(error)}", file=self._file) from error
        record.raise_error()
        with self._lock:
            for label, events in record.events.items():
                self._events[label] = self._events.get(label, Events()) + events
        return outputs

    @cached_property
    def _neurons(self) -> dict[str, _Neuron]:
        """The neuron nodes of the main graph, by label."""
        neurons: dict[str, _Neuron] = {}
        for node in onnx.load_from_string(self._bytes()).graph.node:
            attributes = {attribute.name: attribute for attribute in node.attribute}
            if node.domain != DOMAIN or "label" not in attributes:
                continue
            label = attributes["label"].s.decode()
            if label in neurons:
                raise CompileError("two neurons have this label", node=label, file=self._file)
            steps_out = attributes["steps_out"].i if "steps_out" in attributes else None
            levels, phi = attributes["levels"].i, attributes["phi"].f
            neurons[label] = _Neuron(label, node.output[0], list(node.input[1:]), node.op_type, levels, phi, steps_out)
        return neurons

    @cached_property
    def _traced(self) -> ort.InferenceSession:
        """A second session, with the tensors that :meth:`trace` reads as further outputs."""
        present = {output.name for output in self.outputs}
        wanted = dict.fromkeys(tensor for neuron in self._neurons.values() for tensor in _tensors(neuron))
        # Serialised messages that follow each other merge, and repeated fields add up: no need to rebuild the model.
        more = onnx.ModelProto()
        for tensor in wanted:
            if tensor not in present:
                more.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
        folder = self._folder if self._file is None else self._file.parent
        return self._open(self._bytes() + more.SerializeToString(), folder)

    def _bytes(self) -> bytes:
        """The model file, less its external data."""
        if isinstance(self._model, bytes):
            return self._model
        try:
            return self._model.read_bytes()
        except OSError as error:
            raise CompileError(f"the file cannot be read: {error.strerror}", file=self._model) from error


def _is_utf8(path: Path) -> bool:
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _tensors(neuron: _Neuron) -> list[str]:
    """The tensors that a neuron's train is read from."""
    return [neuron.output] if neuron.steps_out is not None else [neuron.output, neuron.inputs[-1]]


def _spikes(neuron: _Neuron, values: Mapping[str, Array]) -> Array:
    """A neuron's train, or its levels, from the tensors that hold them."""
    y = values[neuron.output]
    if neuron.steps_out is not None:
        return np.sign(y).astype(np.int8).reshape(neuron.steps_out, len(y) // neuron.steps_out, *y.shape[1:])
    height = values[neuron.inputs[-1]]
    unit = height if neuron.operator == MULTI_THRESHOLD.name else height / np.float32(neuron.levels)
    levels = np.rint(y / unit)
    return np.where(np.isnan(levels), -1, levels).astype(np.int32)


def _message(error: Exception) -> str:
    """The first line of an error of onnxruntime, without its prefix "[ONNXRuntimeError] : code : name : "."""
    line = str(error).partition("\n")[0]
    return line.split(" : ", 3)[-1] if line.startswith("[ONNXRuntimeError]") else line
