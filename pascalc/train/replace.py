"""Replacing the ReLUs of a PyTorch model by QCFS."""

from __future__ import annotations

import copy
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping

import torch
from torch import fx, nn
from torch.nn import functional as F

from pascalc.errors import CompileError
from pascalc.train.qcfs import QCFS, check_levels

RELUS = (nn.ReLU, nn.ReLU6)
_RELU_FUNCTIONS = (F.relu, F.relu6, torch.relu, torch.relu_)
_RELU_METHODS = ("relu", "relu_")


def replace_relu(model: nn.Module, levels: int | Mapping[str, int] = 4, theta: float = 8.0) -> list[str]:
    """Replace every ``nn.ReLU`` and ``nn.ReLU6`` of a model by a :class:`~pascalc.train.QCFS` of its own, in place.

    Args:
        model: the model. Each QCFS takes over the mode of the ReLU, and the device and dtype of the model's parameters.
        levels: L, 1 to 255, for all; or a mapping from each ReLU's name, as in ``model.named_modules()``, to its L.
        theta: the initial threshold of all of them.

    Returns:
        The names of the replaced modules, in the order of ``model.named_modules()``.

    Raises:
        CompileError: levels or theta are out of range; the mapping misses a ReLU or names something else; the model
            has no ReLU module, or is itself one; a ReLU module is used at two places, which need a threshold each; a
            ReLU is called as a function, where no module can take its place. The model is then unchanged.

    Functions and second uses are found by tracing the model with ``torch.fx``. A model that cannot be traced gets a
    ``UserWarning``, since a ReLU may then have been missed.
    """
    names = _relu_names(model)
    levels_of = _levels_by_name(levels, names)
    _refuse_what_would_be_missed(model, names)
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    for name in names:
        qcfs = QCFS(levels_of[name], theta).to(device=like.device, dtype=like.dtype)
        model.set_submodule(name, qcfs.train(model.get_submodule(name).training))
    return names


def _relu_names(model: nn.Module) -> list[str]:
    """The names of the ReLU modules, each of which must have only one."""
    names_of: dict[nn.Module, list[str]] = defaultdict(list)
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, RELUS):
            names_of[module].append(name)
    for names in names_of.values():
        if len(names) > 1:
            raise CompileError(
                f"one ReLU module stands at {len(names)} places ({', '.join(names)}), which need a threshold each",
                node=names[0],
                hint="Create a nn.ReLU() for each place.",
            )
    if model in names_of:
        raise CompileError(
            "the model is itself a ReLU and cannot be replaced in place", hint="Use pascalc.train.QCFS() instead of it."
        )
    if not names_of:
        raise CompileError(
            "the model has no nn.ReLU and no nn.ReLU6 module, so there is nothing to replace",
            hint="Other activations cannot become QCFS without changing the network: use nn.ReLU() modules.",
        )
    return [names[0] for names in names_of.values()]


def _levels_by_name(levels: int | Mapping[str, int], names: list[str]) -> dict[str, int]:
    if not isinstance(levels, Mapping):
        return dict.fromkeys(names, check_levels(levels))
    hint = f"The ReLU modules are: {', '.join(names)}."
    for name in levels:
        if name not in names:
            raise CompileError("levels names something that is not a ReLU module of the model", node=name, hint=hint)
    for name in names:
        if name not in levels:
            raise CompileError("levels has no entry for this ReLU module", node=name, hint=hint)
    return {name: check_levels(levels[name]) for name in names}


class _Tracer(fx.Tracer):
    """Traces into everything that has parts: torch's own layers can call a ReLU as a function too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, QCFS) or (m.__module__.startswith("torch.nn") and not any(m.children()))


def _refuse_what_would_be_missed(model: nn.Module, names: list[str]) -> None:
    """Find second uses of a ReLU module, and functional ReLUs."""
    try:
        # The copy, because tracing can leave constants on the model.
        graph = _Tracer().trace(copy.deepcopy(model))
    except Exception as error:  # whatever the model's own code raises on a symbolic input
        warnings.warn(
            f"torch.fx cannot trace the model ({error}), so it is not known whether a ReLU module is used twice, or a "
            "ReLU is called as a function (F.relu, torch.relu), which stays as it is",
            UserWarning,
            stacklevel=3,
        )
        return
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for name in names:
        if calls[name] > 1:
            raise CompileError(
                f"this ReLU module is called {calls[name]} times, and each place needs a threshold of its own",
                node=name,
                hint="Create a nn.ReLU() for each place.",
            )
    for node in graph.nodes:
        if _is_functional_relu(node):
            name, kind = _owner(node, model)
            raise CompileError(
                f"the forward of this {kind} calls a ReLU as a function ({_call(node)}), where no module can take its "
                "place",
                node=name or None,
                hint="Write it as a nn.ReLU() module.",
            )


def _is_functional_relu(node: fx.Node) -> bool:
    if node.op == "call_function":
        return node.target in _RELU_FUNCTIONS
    return node.op == "call_method" and node.target in _RELU_METHODS


def _call(node: fx.Node) -> str:
    return (
        f"x.{node.target}()" if isinstance(node.target, str) else f"{getattr(node.target, '__name__', node.target)}()"
    )


def _owner(node: fx.Node, model: nn.Module) -> tuple[str, str]:
    """The module whose forward contains the call: its name, "" for the model itself, and its class."""
    stack: dict[str, tuple[str, type]] = node.meta.get("nn_module_stack") or {"": ("", type(model))}
    name, kind = list(stack.values())[-1]
    return name, kind.__name__
