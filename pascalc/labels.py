"""Labels of neurons: what everything that is said of a neuron is filed under, so no two neurons may share one."""

from __future__ import annotations

from pascalc.errors import CompileError
from pascalc.graph import Model
from pascalc.neurons import is_neuron, is_spiking


def is_compiled(model: Model) -> bool:
    """Whether the network came out of the compiler: it spikes, or says so."""
    return is_spiking(model) or "pascalc.version" in model.metadata


def distinct(model: Model) -> Model:
    """A network as it was loaded, if it is a source, whose activations get labels of their own when they are
    recognised, or if the labels of its neurons differ.

    Raises:
        CompileError: two neurons of a compiled network have one label.
    """
    seen: set[str] = set()
    labelled = [node for node in model.graph.nodes if is_neuron(node) and "label" in node.attrs]
    for label in (node.attrs["label"] for node in labelled if is_compiled(model)):
        if label in seen:
            raise CompileError(
                "two layers of neurons have this label",
                file=model.file,
                node=label,
                hint="Compile the source network again, or give each a label of its own.",
            )
        seen.add(label)
    return model
