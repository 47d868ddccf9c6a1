"""A smaller model that still fails: delta debugging over the graph [Zeller & Hildebrandt 2002].

What fails is for the user's command to say; a candidate fails if the command ends as it does on the original. Every
candidate is a valid model. Four kinds of steps are tried until none makes the model smaller:

- an inner tensor becomes the output, and what it does not need goes;
- an inner tensor becomes an input, and what only it needed goes;
- nodes are bypassed: what comes out is what went in, where both have the same shape and type;
- weights become zeros, or ones.
"""

from __future__ import annotations

import math
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.shape_inference

from pascalc.errors import CompileError
from pascalc.files import beside, reason, unwinding, write_atomically
from pascalc.modelfile import check_output, load, to_bytes
from pascalc.protos import subgraphs

Progress = Callable[[int, int], None]
Model = onnx.ModelProto
#: A change of the model, which says whether there was anything to change.
Step = Callable[[Model], bool]


@dataclass(frozen=True)
class Reduction:
    """What was reached.

    Attributes:
        status: the exit status that counts as failing.
        nodes: the number of nodes before and after.
        runs: how often the command ran.
    """

    output: Path
    status: int
    nodes: tuple[int, int]
    runs: int


def default_output(model: Path) -> Path:
    """``model.onnx`` -> ``model.reduced.onnx``, beside it."""
    return beside(model, "reduced")


def reduce_model(
    model: str | Path,
    fails: str,
    output: str | Path | None = None,
    *,
    timeout: float = 60,
    progress: Progress | None = None,
) -> Reduction:
    """Shrink a model on which a command fails.

    Args:
        model: the ONNX file.
        fails: the command, split into words as a shell does, but run without one. ``{}`` stands for the path of the
            model to try; where there is none, the path comes last.
        output: where the smaller model goes; by default ``<model>.reduced.onnx`` beside it.
        timeout: seconds for one run; a candidate that takes longer does not fail.
        progress: called with (nodes removed, nodes at first).

    Raises:
        CompileError: the model cannot be read, the command cannot be run, ends with status 0 on the model or takes too
            long, the timeout is no positive, finite number, or the output cannot be written.
    """
    if not 0 < timeout < math.inf:
        raise CompileError(f"the timeout must be a positive, finite number of seconds, not {timeout:g}")
    source = Path(model)
    result = default_output(source) if output is None else Path(output)
    check_output(source, result)
    first = _with_shapes(Model.FromString(to_bytes(load(source))))
    with unwinding(), tempfile.TemporaryDirectory() as folder:
        check = _Command(_words(fails), timeout, Path(folder) / "candidate.onnx")
        status = check.status(source)
        if status is None or status == 0:
            ended = "takes too long" if status is None else "ends with status 0"
            raise CompileError(
                f"the command {ended} on this model, so there is no failure to keep",
                file=source,
                hint="Give a command that fails: --fails 'COMMAND {}', or a longer --timeout.",
            )
        if not check.fails(first, status):
            raise CompileError(
                "the command does not fail in the same way on the model as pascalc reads it", file=source
            )
        best = _Search(first, lambda m: check.fails(m, status), progress).run()
    write_atomically(result, [best.SerializeToString()])
    return Reduction(result, status, (len(first.graph.node), len(best.graph.node)), check.runs)


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise CompileError(f"the command cannot be split into words: {error}") from error
    if not words:
        raise CompileError("the command is empty")
    return words if any("{}" in word for word in words) else [*words, "{}"]


@dataclass
class _Command:
    """The user's command, and how often it ran."""

    words: Sequence[str]
    timeout: float
    candidate: Path
    runs: int = 0

    def status(self, model: Path) -> int | None:
        """Its exit status on a model; None where it takes too long."""
        self.runs += 1
        words = [word.replace("{}", str(model)) for word in self.words]
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a group of its own, to be ended with all that it started
            )
        except (OSError, ValueError) as error:
            raise CompileError(f"the command '{words[0]}' cannot be run: {reason(error)}") from error
        try:
            return process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def fails(self, model: Model, status: int) -> bool:
        self.candidate.write_bytes(model.SerializeToString())
        return self.status(self.candidate) == status


@dataclass
class _Search:
    best: Model
    fails: Callable[[Model], bool]
    progress: Progress | None
    _total: int = field(init=False)

    def __post_init__(self) -> None:
        self._total = len(self.best.graph.node)

    def run(self) -> Model:
        while any([self._cut(_as_output), self._cut(_as_input), self._bypass(), self._plain_weights()]):
            pass
        return self.best

    def _try(self, step: Step) -> bool:
        """Take the step if the model that it gives is valid and fails."""
        candidate = Model()
        candidate.CopyFrom(self.best)
        if not step(candidate):
            return False
        _prune(candidate)
        try:
            onnx.checker.check_model(candidate)
        except onnx.checker.ValidationError:
            return False
        if not self.fails(candidate):
            return False
        self.best = candidate
        if self.progress is not None:
            self.progress(self._total - len(candidate.graph.node), self._total)
        return True

    def _cut(self, kind: Callable[[str, Model], bool]) -> bool:
        """Cut at the tensor that leaves the smallest network: by halves first, then one by one."""
        found, at = False, 0
        step = max(len(self.best.graph.node) // 2, 1)
        while step:
            at = 0
            while at < len(self.best.graph.node):
                names = [n for n in self.best.graph.node[at].output if n]
                if names and self._try(partial(kind, names[0])):
                    found, at = True, 0
                else:
                    at += step
            step //= 2
        return found

    def _bypass(self) -> bool:
        """Leave out nodes: ever smaller runs of them [ddmin]."""
        found, size = False, max(len(self.best.graph.node) // 2, 1)
        while size:
            at = 0
            while at < len(self.best.graph.node):
                if self._try(partial(_leave_out, at, size)):
                    found = True
                else:
                    at += size
            size //= 2
        return found

    def _plain_weights(self) -> bool:
        names = [t.name for t in self.best.graph.initializer]
        found = False
        for name in names:
            for value in (0, 1):
                if self._try(partial(_fill, name, value)):
                    found = True
                    break
        return found


def _with_shapes(model: Model) -> Model:
    """The model with the shapes of its inner tensors written down, which cuts need."""
    return onnx.shape_inference.infer_shapes(model)


def _values(model: Model) -> dict[str, onnx.ValueInfoProto]:
    graph = model.graph
    return {v.name: v for v in (*graph.value_info, *graph.output, *graph.input)}


def _as_output(name: str, model: Model) -> bool:
    """The tensor becomes the only output."""
    value = _values(model).get(name)
    if value is None or [o.name for o in model.graph.output] == [name]:
        return False
    kept = onnx.ValueInfoProto()
    kept.CopyFrom(value)
    del model.graph.output[:]
    model.graph.output.append(kept)
    return True


def _as_input(name: str, model: Model) -> bool:
    """The tensor becomes an input; the node that computes it goes."""
    value = _values(model).get(name)
    at = next((i for i, n in enumerate(model.graph.node) if name in n.output), None)
    if value is None or at is None or name in {o.name for o in model.graph.output}:
        return False
    if not value.type.tensor_type.HasField("shape") or len(model.graph.node[at].output) > 1:
        return False
    model.graph.input.add().CopyFrom(value)
    del model.graph.node[at]
    return True


def _leave_out(at: int, size: int, model: Model) -> bool:
    """Bypass those of ``size`` nodes that give what they get."""
    graph, values = model.graph, _values(model)
    outputs = {o.name for o in graph.output}
    replaced: dict[str, str] = {}
    kept = []
    for index, node in enumerate(graph.node):
        name = node.output[0] if len(node.output) == 1 else ""
        twin = next((i for i in node.input if _same(values.get(i), values.get(name))), None)
        if at <= index < at + size and twin is not None and name not in outputs:
            replaced[name] = replaced.get(twin, twin)
        else:
            kept.append(node)
    for node in kept:
        node.input[:] = [replaced.get(i, i) for i in node.input]
    rest = onnx.GraphProto()
    rest.node.extend(kept)
    del graph.node[:]
    graph.node.extend(rest.node)
    return bool(replaced)


def _same(one: onnx.ValueInfoProto | None, other: onnx.ValueInfoProto | None) -> bool:
    if one is None or other is None or not one.type.tensor_type.HasField("shape"):
        return False
    return bool(one.type == other.type)


def _fill(name: str, value: int, model: Model) -> bool:
    """The initializer becomes constant."""
    tensor = next(t for t in model.graph.initializer if t.name == name)
    array = onnx.numpy_helper.to_array(tensor)
    if array.dtype.kind != "f" or array.size < 2 or np.all(array == array.flat[0]):
        return False
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.full_like(array, value), name))
    return True


def _prune(model: Model) -> None:
    """Drop what no output depends on."""
    graph = model.graph
    needed = {o.name for o in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(_used(node))
    rest = onnx.GraphProto()
    rest.node.extend(reversed(kept))
    rest.initializer.extend(t for t in graph.initializer if t.name in needed)
    rest.input.extend(i for i in graph.input if i.name in needed)
    rest.value_info.extend(v for v in graph.value_info if v.name in needed)
    for name in ("node", "initializer", "input", "value_info"):
        graph.ClearField(name)
    graph.MergeFrom(rest)
    used = {(n.domain, n.op_type) for n in graph.node}
    functions = [f for f in model.functions if (f.domain, f.name) in used]
    if len(functions) < len(model.functions):
        copies = Model()
        copies.functions.extend(functions)
        del model.functions[:]
        model.functions.extend(copies.functions)


def _used(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors that a node uses, its subgraphs included."""
    yield from node.input
    for graph in subgraphs(node):
        yield from (o.name for o in graph.output)
        for inner in graph.node:
            yield from _used(inner)
