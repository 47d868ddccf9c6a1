"""Writing a trained model as ONNX, with names that follow the model's modules.

torch has two exporters. This uses the older one, which traces: it names every node after its module
(``/block1/relu/Div``), which is what a person reads in the compiler's reports, and it can keep BatchNormalization
without leaving unfolded constants all over the graph. The newer one numbers its nodes through (``node_div_3``) and
gives one or the other. The compiler reads the files of both.
"""

from __future__ import annotations

import copy
import io
import json
import warnings
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from pascalc.al.histograms import module_name
from pascalc.errors import CompileError
from pascalc.files import write_atomically
from pascalc.runtime import RUNTIME_ERRORS
from pascalc.tables import counted
from pascalc.train.plan import Batch, level_histograms
from pascalc.train.qcfs import QCFS, along_channels, check_levels, quantise
from pascalc.train.replace import RELUS

OPSET = 18

HISTOGRAMS = "pascalc.histograms"
"""The key of the level histograms in the file's metadata: JSON, ``{layer: [neurons of level 0, ..., of level L]}``."""


#: What a QCFS has, in whatever form it is written.
_STEPS = ("Floor", "Round", "Ceil")


class _FrozenQCFS(nn.Module):
    """What is exported in place of a QCFS: the same formula on the effective theta, without the guard's extra node."""

    def __init__(self, trained: QCFS) -> None:
        super().__init__()
        self.theta = nn.Parameter(trained.effective_theta().detach().clone(), requires_grad=False)
        self.levels = trained.levels
        self.channels = trained.channels

    def forward(self, x: Tensor) -> Tensor:
        # The rank of x is known at the first run, which is before the trace: so the file gets theta in its final shape
        # and under its name, not a Reshape of it.
        if self.channels is not None and self.theta.dim() != x.dim() - 1:
            self.theta = nn.Parameter(along_channels(self.theta, x), requires_grad=False)
        return quantise(x, self.theta, self.levels)


def export(
    model: nn.Module,
    sample: Tensor,
    path: str | Path,
    *,
    fold_bn: bool = True,
    input_name: str = "input",
    output_name: str = "logits",
    calibration: Iterable[Batch] | None = None,
) -> None:
    """Write the model in inference mode as an ONNX file of standard operators.

    Args:
        model: takes one tensor ``[N, ...]`` and gives one tensor ``[N, ...]``. It is not changed: a copy is exported,
            so it keeps its mode (training or evaluation), its device and its parameters.
        sample: float, ``[N, ...]``, an input of the shape that the file shall accept; N is free in the file.
        path: the file to write. It is written whole or not at all.
        fold_bn: True folds each BatchNormalization into the convolution before it, where there is one. False keeps
            all of them as BatchNormalization nodes.
        input_name: the name of the file's input.
        output_name: the name of the file's output.
        calibration: batches of inputs, such as a DataLoader over some training images. The level histogram of every
            QCFS over them is recorded in the file's metadata, so that a plan of layerwise levels can be made from the
            file alone.

    A model with ReLUs, or without any QCFS, is exported with a ``UserWarning``: ReLUs are computed and do not spike,
    and a network in which nothing would spike is not compiled.

    The effective theta of every QCFS is an initializer named after its module (``block1.relu.theta``).

    Raises:
        CompileError: a theta is not finite; levels are out of range; the model fails on the sample, does not give one
            tensor with the batch on axis 0, has an operator that ONNX lacks, or works only for the sample's batch
            size; the file cannot be written; the calibration batches do not fit
            (:func:`~pascalc.train.level_histograms`).
    """
    path = Path(path)
    frozen = _freeze(model)
    sample = sample.detach().cpu()
    _run(frozen, sample)
    histograms = {} if calibration is None else level_histograms(model, calibration)
    data = _trace(frozen, sample, fold_bn, input_name, output_name)
    proto = onnx.load_from_string(data)
    _unshare_initializers(proto.graph)
    _name_folded_weights(proto.graph)
    if histograms:
        recorded = {name: histogram.counts.tolist() for name, histogram in histograms.items()}
        onnx.helper.set_model_props(proto, {HISTOGRAMS: json.dumps(recorded)})
    onnx.checker.check_model(proto, full_check=True)
    serialised = proto.SerializeToString()
    _check_batch_is_free(serialised, frozen, sample)
    _warn_of_what_does_not_spike(frozen, proto.graph)
    write_atomically(path, [serialised])


def _freeze(model: nn.Module) -> nn.Module:
    """A copy on the CPU, in evaluation mode, with every QCFS frozen."""
    try:
        frozen = copy.deepcopy(model).cpu().eval()
    except RuntimeError as error:
        raise CompileError(
            f"the model cannot be copied: {error}", hint="Remove weight_norm and the like from it before the export."
        ) from error
    # A QCFS that is registered under two names has to be replaced under both.
    for name, module in list(frozen.named_modules(remove_duplicate=False)):
        if not isinstance(module, QCFS):
            continue
        if not torch.isfinite(module.theta).all():
            raise CompileError(
                "theta of this QCFS is not a finite number",
                node=name,
                hint="Its training diverged: start again with a lower learning rate or a larger initial theta.",
            )
        check_levels(module.levels)
        if not name:
            return _FrozenQCFS(module)
        frozen.set_submodule(name, _FrozenQCFS(module))
    return frozen


def _warn_of_what_does_not_spike(model: nn.Module, graph: onnx.GraphProto) -> None:
    modules = [name or "the model itself" for name, module in model.named_modules() if isinstance(module, RELUS)]
    places = [module_name(node.name.rpartition("/")[0]) for node in graph.node if node.op_type == "Relu"]
    functions = [f"a function in {place or 'the model itself'}" for place in places if place not in modules]
    found = [*modules, *functions]
    warning = []
    if found:
        warning.append(
            f"the model still has {counted(len(found), 'ReLU')}, computed and not spiking: {', '.join(found)}"
        )
    if not any(node.op_type in _STEPS or "Quant" in node.op_type for node in graph.node):
        warning.append("the model has no QCFS: nothing would spike, and `pascalc compile` refuses the file")
    if warning:
        warnings.warn(f"{'; '.join(warning)}. pascalc.train.replace_relu(model) makes ReLUs QCFS.", stacklevel=3)


@torch.no_grad()
def _run(model: nn.Module, x: Tensor) -> Tensor:
    """The model's output, which has to be one tensor with the batch on axis 0."""
    try:
        output = model(x)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise CompileError(
            f"the model fails on an input of shape {list(x.shape)}: {error}", hint="Give a sample that it accepts."
        ) from error
    if not isinstance(output, Tensor) or output.dim() == 0 or output.shape[0] != x.shape[0]:
        given = f"a tensor of shape {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise CompileError(
            f"the model gives {given} for an input of shape {list(x.shape)}",
            hint="It must give one tensor with the batch on axis 0; wrap it in a module that does.",
        )
    return output


def _trace(model: nn.Module, sample: Tensor, fold_bn: bool, input_name: str, output_name: str) -> bytes:
    """The model as a serialised ONNX file."""
    # PRESERVE means "as the model is", which here is evaluation too; it differs in that BatchNormalization stays.
    mode = torch.onnx.TrainingMode.EVAL if fold_bn else torch.onnx.TrainingMode.PRESERVE
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # What torch says of its older exporter, of that one's calls within torch, and of folding constants beside
        # BatchNormalization, all of which is the choice explained above. Other warnings reach the user.
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based ONNX export", DeprecationWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.onnx")
        warnings.filterwarnings("ignore", "It is recommended that constant folding be turned off", UserWarning)
        try:
            torch.onnx.export(
                model,
                (sample,),
                buffer,  # type: ignore[arg-type]  # the older exporter takes it; the signature is the newer one's
                dynamo=False,
                training=mode,
                input_names=[input_name],
                output_names=[output_name],
                dynamic_axes={input_name: {0: "batch"}, output_name: {0: "batch"}},
                opset_version=OPSET,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise CompileError(
                f"torch cannot export the model: {error}",
                hint="Export the network up to that operator, and do the rest outside.",
            ) from error
    return buffer.getvalue()


def _unshare_initializers(graph: onnx.GraphProto) -> None:
    """Give every name its own initializer again: torch stores equal ones once and copies them with Identity nodes."""
    initializers = {initializer.name: initializer for initializer in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "Identity" and n.input[0] in initializers]:
        own = onnx.TensorProto()
        own.CopyFrom(initializers[node.input[0]])
        own.name = node.output[0]
        graph.initializer.append(own)
        graph.node.remove(node)


def _name_folded_weights(graph: onnx.GraphProto) -> None:
    """Name weights after their layer where folding has left numbers: onnx::Conv_153 becomes block1.conv.weight."""
    initializers = {initializer.name: initializer for initializer in graph.initializer}
    for node in graph.node:
        layer = node.name.strip("/").rpartition("/")[0].replace("/", ".")
        for index, part in ((1, "weight"), (2, "bias")):
            if len(node.input) <= index or not node.input[index].startswith("onnx::"):
                continue
            # A weight that two layers share has been renamed by the first of them and is not found here again.
            name = f"{layer}.{part}"
            if name in initializers or node.input[index] not in initializers:
                continue
            initializers[name] = initializers.pop(node.input[index])
            for user in graph.node:
                user.input[:] = [name if i == initializers[name].name else i for i in user.input]
            initializers[name].name = name


def _check_batch_is_free(serialised: bytes, model: nn.Module, sample: Tensor) -> None:
    """Run the file on another batch size than the sample's: a trace can bake a size in without a word."""
    twice = torch.cat([sample, sample])
    wanted = list(_run(model, twice).shape)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors come back as exceptions, and are told below
    session = onnxruntime.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
    try:
        (output,) = session.run(None, {session.get_inputs()[0].name: twice.numpy()})
        found = f"gives the shape {list(output.shape)} instead of {wanted}"
    except RUNTIME_ERRORS as error:
        output, found = None, f"fails: {error}"
    if output is None or list(output.shape) != wanted:
        raise CompileError(
            f"the exported network works for a batch of {len(sample)} only; with {len(twice)} it {found}",
            hint="Write shapes in the model without the batch size, as x.flatten(1) or x.reshape(x.shape[0], -1).",
        )
