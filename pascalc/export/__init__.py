"""Exporters: spiking networks in the forms that other engines and toolchains read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pascalc.errors import CompileError
from pascalc.export.base import Target
from pascalc.export.weights import Weights
from pascalc.files import new_folder
from pascalc.graph import sweep
from pascalc.modelfile import load
from pascalc.network import layout
from pascalc.neurons import analysed_neurons, distinct, is_compiled, is_spiking

__all__ = ["TARGETS", "Target", "Weights", "export", "target"]

#: Every target.
TARGETS: tuple[type[Target], ...] = (Weights,)


def target(name: str, options: Mapping[str, Any]) -> Target:
    """A target with its options; those that are None are not given.

    Raises:
        CompileError: there is no such target, it has no such option, or an option is out of range.
    """
    known = {one.name: one for one in TARGETS}
    if name not in known:
        raise CompileError(f"there is no target '{name}'", hint=f"There is: {', '.join(known)}.")
    given = {option: value for option, value in options.items() if value is not None}
    for option in given.keys() - {field.name for field in fields(known[name])}:
        having = [one.name for one in TARGETS if option in {field.name for field in fields(one)}]
        raise CompileError(
            f"the target '{name}' takes no {option}",
            hint=f"--{option} belongs to --to {', '.join(having)}." if having else "",
        )
    return known[name](**given)


def export(model: str | Path, to: Target, output: str | Path) -> None:
    """Write a spiking network for a target.

    Args:
        model: the file that the compiler wrote, unrolled in time.
        to: the target, with its options.
        output: the folder that is written, whole or not at all. It must not exist yet, or be empty.

    Raises:
        CompileError: the file cannot be read, or is no spiking network; the target cannot hold it, or an option does
            not fit it; the folder is not empty, or cannot be written.
    """
    with new_folder(Path(output)) as folder:
        network = distinct(load(model))
        if not is_spiking(network):
            way = "pascalc compile MODEL.onnx -o SNN.onnx"
            if is_compiled(network):
                reason = "this network is compiled to spike counts, without time steps"
                way += ", without --schedule collapsed"
            else:
                reason = "this is a source network: nothing in it spikes"
            raise CompileError(f"{reason}, so it has no trains to export", file=model, hint=f"Compile it: {way}.")
        analysed_neurons(network)
        sweep(network)
        found = layout(network)
        refused = to.refusals(found)
        if refused:
            more = f"; and {len(refused) - 1} more such nodes" if len(refused) > 1 else ""
            message = f"the target '{to.name}' cannot hold this network: {refused[0].reason}{more}"
            raise CompileError(message, file=model, node=refused[0].node, hint=f"It holds {to.carries}.")
        to.write(found, folder)
