"""The edits that passes are made of: identity of tensors, unique names, order, dead nodes, captured tensors."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from pascalc import graph
from pascalc.errors import CompileError
from pascalc.graph import Model, NoteKind
from tests.helpers import loaded, operators, parse

CHAIN = """
network (float[N,2] x) => (float[N,2] y) <float[2] w = {1, 2}> {
  [first] a = Mul (x, w)
  [second] b = Add (a, w)
  [third] y = Neg (b)
}
"""

CAPTURING = """
network (float[N,2] x, bool flag) => (float[N,2] y) {
  [used] a = Neg (x)
  [deep] b = Abs (x)
  [choice] y = If (flag) <
    then_branch = yes () => (float[N,2] u) { u = Identity (a) },
    else_branch = no () => (float[N,2] v) {
      v = If (flag) <then_branch = inner () => (float[N,2] r) { r = Identity (b) },
                     else_branch = other () => (float[N,2] s) { c = Neg (b) s = Neg (c) }>
    }
  >
}
"""


def node(model: Model, name: str) -> gs.Node:
    (found,) = (n for n in model.graph.nodes if n.name == name)
    return found


def test_unique_names_avoid_tensors_nodes_inputs_and_subgraphs() -> None:
    model = loaded(parse(CAPTURING))
    for taken in ("x", "y", "a", "used", "flag", "u", "r", "c"):
        assert model.unique_name(taken) == f"{taken}_2"
        assert model.unique_name(taken) == f"{taken}_3"
    assert model.unique_name("new") == "new"
    assert model.unique_name("new") == "new_2"


def test_constants_get_their_own_names_and_memory() -> None:
    model = loaded(parse(CHAIN))
    values = np.arange(6.0).reshape(2, 3).T
    tensor = model.constant("w", values)
    assert tensor.name == "w_2"
    assert tensor.values.flags.c_contiguous
    np.testing.assert_array_equal(tensor.values, values)
    assert model.constant("scalar", np.asarray(1.0)).values.shape == ()


def test_captured_tensors_of_nested_subgraphs() -> None:
    model = loaded(parse(CAPTURING))
    assert sorted(t.name for t in graph.captured(node(model, "choice"))) == ["a", "b", "flag"]
    assert graph.captured(node(model, "used")) == []


def test_sweep_removes_what_nothing_needs() -> None:
    model = loaded(parse(CAPTURING))
    assert graph.sweep(model) == 0  # what only a subgraph uses is needed
    extra = gs.Variable("extra", np.float32)
    model.graph.nodes.append(gs.Node("Neg", "dead", inputs=[model.graph.inputs[0]], outputs=[extra]))
    model.graph.nodes.append(gs.Node("Neg", "dead too", inputs=[extra], outputs=[gs.Variable("more", np.float32)]))
    assert graph.sweep(model) == 2
    assert operators(model) == ["Neg", "Abs", "If"]
    assert all(n.name in ("used", "deep", "choice", "") for n in model.graph.inputs[0].outputs)


def test_sort_orders_by_need_and_keeps_the_rest() -> None:
    model = loaded(parse(CHAIN))
    model.graph.nodes.reverse()
    graph.sort(model)
    assert [n.name for n in model.graph.nodes] == ["first", "second", "third"]
    graph.sort(model)
    assert [n.name for n in model.graph.nodes] == ["first", "second", "third"]


def test_sort_sees_what_subgraphs_need() -> None:
    model = loaded(parse(CAPTURING))
    model.graph.nodes.reverse()
    graph.sort(model)
    assert model.graph.nodes[-1].name == "choice"


def test_sort_of_a_deep_graph_does_not_recurse() -> None:
    model = loaded(parse(CHAIN))
    tensor = model.graph.outputs[0]
    for index in range(5000):
        out = gs.Variable(f"deep{index}", np.float32)
        model.graph.nodes.append(gs.Node("Neg", f"n{index}", inputs=[tensor], outputs=[out]))
        tensor = out
    model.graph.outputs[0] = tensor
    model.graph.nodes.reverse()
    graph.sort(model)
    assert model.graph.nodes[-1].name == "n4999"


def test_cycle_is_an_error_that_names_a_node() -> None:
    model = loaded(parse(CHAIN))
    node(model, "first").inputs[0] = node(model, "second").outputs[0]
    with pytest.raises(CompileError, match="the graph has a cycle") as caught:
        graph.sort(model)
    assert caught.value.node in ("first", "second")


def test_set_input_replaces_and_appends() -> None:
    model = loaded(parse(CHAIN))
    clip = gs.Node("Clip", "clip", inputs=[model.graph.inputs[0]], outputs=[gs.Variable("c", np.float32)])
    high = model.constant("high", np.asarray(1, np.float32))
    graph.set_input(clip, 2, high)
    assert clip.inputs[1].is_empty()
    assert clip.inputs[2] is high
    assert not graph.has_tensor(clip, 1)
    assert graph.has_tensor(clip, 2)
    assert not graph.has_tensor(clip, 3)
    low = model.constant("low", np.asarray(0, np.float32))
    graph.set_input(clip, 1, low)
    assert clip.inputs[1] is low


def test_equal_tensors_are_told_apart() -> None:
    """graphsurgeon calls tensors of one name equal; an output is one by identity."""
    model = loaded(parse(CHAIN))
    output = model.graph.outputs[0]
    twin = gs.Variable(output.name, output.dtype, output.shape)
    assert twin == output
    assert model.is_output(output)
    assert not model.is_output(twin)


def test_notes_are_asked_for_by_kind() -> None:
    """Who wrote a note is for display: two passes may write notes of one kind, and one pass notes of several."""
    model = loaded(parse("network (float[N,2] x) => (float[N,2] y) { y = Relu (x) }"))
    model.note("one", "a", "is computed", NoteKind.NOT_SPIKING)
    model.note("one", "b", "is slow", NoteKind.WARNING)
    model.note("other", "c", "is computed too", NoteKind.NOT_SPIKING)
    model.note("other", "d", "stays")
    assert [str(note) for note in model.noted(NoteKind.NOT_SPIKING)] == ["a: is computed", "c: is computed too"]
    assert [note.node for note in model.notes if note.warning] == ["b"]
    assert [note.node for note in model.noted(NoteKind.REFUSED)] == ["d"]
    assert not model.noted(NoteKind.NEAR_MISS)
