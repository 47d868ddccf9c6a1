"""Layerwise levels of a PyTorch model: measuring what a plan is made from, and applying one.

PASCAL (Ramesh & Srinivasan 2025), Algorithm 4, is a training loop with two lines of this module in it:

    plan = make_plan(level_histograms(model, calibration), clusters=3)      # of the network trained at a uniform L
    ...                                                                     # retrain at that L for 2/3 of the epochs
    apply_plan(model, plan)                                                 # and go on to convergence

A layer is named by its module's place in the model with "/" for ".", as ``block1/first/relu``. The compiler names it so
too, or with the indices of a Sequential behind its name, as ``blocks/blocks.0/relu``, which is understood.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from pascalc.al.histograms import module_name
from pascalc.al.metrics import Histogram
from pascalc.al.plan import Plan
from pascalc.errors import CompileError
from pascalc.train.qcfs import QCFS, along_channels

Batch = Tensor | Sequence[Tensor]
"""Inputs, or what a DataLoader gives: a sequence whose first entry is the inputs."""


def level_histograms(model: nn.Module, calibration: Iterable[Batch]) -> dict[str, Histogram]:
    """How often each QCFS of a model has each of its levels 0..L, over all batches.

    Args:
        model: run in evaluation mode, on the device of its parameters; its modes are restored.
        calibration: batches of inputs, float ``[N, ...]``; labels and the like beside them are ignored.

    Returns:
        The histogram of each QCFS by name, in the order in which they are called. Memory does not grow with the number
        of batches.

    Raises:
        CompileError: the model has no QCFS that is called, there is no batch, a batch is not a tensor or does not fit
            the model, or an activation is NaN.
    """
    totals: dict[str, Histogram] = {}
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    modes = [(module, module.training) for module in model.modules()]
    batches = 0
    with ExitStack() as stack, torch.no_grad():
        for name, module in named_layers(model).items():
            stack.enter_context(module.register_forward_hook(_Counter(name, totals)))
        stack.callback(_restore, modes)
        model.eval()
        for batch in calibration:
            _run(model, batch, device)
            batches += 1
    if not batches:
        raise CompileError("there are no calibration batches", hint="Give a list of tensors, or a DataLoader.")
    if not totals:
        raise CompileError(
            "the model has no QCFS activations to count", hint="Replace its ReLUs first: pascalc.train.replace_relu."
        )
    return totals


def apply_plan(model: nn.Module, plan: Plan) -> None:
    """Set the levels of every QCFS of a model to those of a plan, in place; thetas stay as they are.

    Args:
        model: the model that the plan was made for. Wrappers around it are fine: where no module has exactly the
            plan's name, the one whose name ends in it is meant.
        plan: names and levels of all layers. A name is a module's, or the label that the compiler gives the layer.

    Raises:
        CompileError: the plan names a layer that the model lacks, or that could be several; or it leaves out a QCFS of
            the model. The model is then unchanged.
    """
    layers = named_layers(model)
    levels: dict[str, int] = {}
    for row in plan.layers:
        name = _resolve(row.name, list(layers))
        if name in levels:
            raise CompileError("the plan names this QCFS twice", node=row.name)
        levels[name] = row.levels
    missing = [name for name in layers if name not in levels]
    if missing:
        raise CompileError(
            "the plan has no levels for this QCFS", node=missing[0], hint=f"Missing: {', '.join(missing)}."
        )
    for name, module in layers.items():
        module.levels = levels[name]


def named_layers(model: nn.Module) -> dict[str, QCFS]:
    """The QCFS modules of a model, by the names that the compiler gives their layers."""
    return {name.replace(".", "/"): m for name, m in model.named_modules() if isinstance(m, QCFS)}


def _resolve(name: str, layers: Sequence[str]) -> str:
    """The layer that a plan's name means."""
    wanted = module_name(name)
    modules = {layer.replace("/", "."): layer for layer in layers}
    found = [m for m in modules if m == wanted] or [m for m in modules if m.endswith(f".{wanted}")]
    if len(found) == 1:
        return modules[found[0]]
    raise CompileError(
        f"the plan's layer is that of several QCFS: {', '.join(modules[m] for m in found)}"
        if found
        else "the plan names a layer that is no QCFS of the model",
        node=name,
        hint=f"The model's layers are: {', '.join(layers) or 'none'}.",
    )


class _Counter:
    """A forward hook that adds a layer's levels to its histogram."""

    def __init__(self, name: str, totals: dict[str, Histogram]) -> None:
        self.name = name
        self.totals = totals

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, QCFS)
        theta = module.effective_theta()
        height = theta if module.channels is None else along_channels(theta, output)
        # The output is a level times theta / L in a few roundings: the quotient is next to the level.
        counts = torch.round(output * (module.levels / height))
        if counts.isnan().any():
            raise CompileError("an activation is NaN", node=self.name, hint="Look at the calibration inputs.")
        found = Histogram(torch.bincount(counts.flatten().long(), minlength=module.levels + 1).cpu().numpy())
        self.totals[self.name] = self.totals[self.name] + found if self.name in self.totals else found


def _restore(modes: Sequence[tuple[nn.Module, bool]]) -> None:
    for module, mode in modes:
        module.training = mode


def _run(model: nn.Module, batch: Batch, device: torch.device) -> None:
    x = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(x, Tensor) or x.dim() == 0 or not len(x):
        shape = f" of shape {list(x.shape)}" if isinstance(x, Tensor) else ""
        raise CompileError(
            f"a calibration batch must be a tensor of inputs [N, ...], or a sequence that begins with one; "
            f"got {type(x).__name__}{shape}"
        )
    try:
        model(x.to(device))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise CompileError(f"the model fails on a calibration batch of shape {list(x.shape)}: {error}") from error
