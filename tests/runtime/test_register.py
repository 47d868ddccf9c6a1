"""The custom-op library: errors stay inside the process, and other people's Python operators go on working."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from pascalc.errors import CompileError
from pascalc.ops import PASC_IF
from pascalc.runtime import InferenceSession, register, session_options
from pascalc.runtime.kernels import KERNELS, Kernel
from tests.runtime.networks import model, one_pasc_if, one_qcfs, pasc_if

PyCustomOpDef, onnx_op, _ocos = (getattr(register.extensions(), name) for name in ("PyCustomOpDef", "onnx_op", "_ocos"))

pasc_if_model = partial(one_pasc_if, steps_in=1)

X = np.linspace(-1, 3, 24, dtype=np.float32).reshape(12, 2)


def replace_kernel(monkeypatch: pytest.MonkeyPatch, replacement: Callable[..., Any]) -> None:
    """Puts another kernel in the place of PascIF's."""
    register.register()
    (number,) = (number for number, kernel in register._registered.items() if kernel.operator is PASC_IF)
    monkeypatch.setitem(register._registered, number, Kernel(PASC_IF, replacement))


def raising(error: BaseException) -> Callable[..., Any]:
    def kernel(*_: Any, **__: Any) -> Any:
        raise error

    return kernel


@pytest.mark.parametrize("error", [ZeroDivisionError("no division by zero"), MemoryError("no memory")])
def test_kernel_error_names_the_neuron(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    session = InferenceSession(one_pasc_if(label="layer1/relu"), "numpy")
    expected = session.run(None, {"X": X})[0]
    with monkeypatch.context() as patch:
        replace_kernel(patch, raising(error))
        with pytest.raises(CompileError, match=rf"{error} \(node 'layer1/relu'\)") as caught:
            session.run(None, {"X": X})
        assert caught.value.__cause__ is error
        assert caught.value.node == "layer1/relu"
    np.testing.assert_array_equal(session.run(None, {"X": X})[0], expected)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_an_interrupt_stays_an_interrupt(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    replace_kernel(monkeypatch, raising(error))
    with pytest.raises(type(error)):
        InferenceSession(one_pasc_if(), "numpy").run(None, {"X": X})


WRONG_RESULTS: dict[str, Callable[[Any], Any]] = {
    "float64": lambda y: y.astype(np.float64),
    "bool": lambda y: y > 0,
    "int32": lambda y: y.astype(np.int32),
    "not contiguous": lambda y: np.asfortranarray(y),
    "too large": lambda y: np.concatenate([y, y]),
    "too small": lambda y: y[:-1],
    "list": lambda y: y.tolist(),
    "None": lambda y: None,
}


@pytest.mark.parametrize("wrong", WRONG_RESULTS.values(), ids=WRONG_RESULTS.keys())
def test_wrong_result_is_an_error(monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Any], Any]) -> None:
    replace_kernel(monkeypatch, lambda x, *_, **__: wrong(np.zeros_like(x)))
    with pytest.raises(CompileError, match=r"a kernel must return a C-contiguous float32 \[12, 2\].*node 'act'"):
        InferenceSession(one_pasc_if(), "numpy").run(None, {"X": X})


def test_first_error_wins_and_later_kernels_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def kernel(*_: Any, levels: int, **__: Any) -> Any:
        seen.append(levels)
        raise ValueError(f"error at {levels} levels")

    replace_kernel(monkeypatch, kernel)
    nodes = [pasc_if("X", "theta", "s", "first", 3, 4), pasc_if("s", "theta", "Y", "second", 4, 4)]
    network = model(nodes, ["Y"], {"theta": np.array(1)})
    with pytest.raises(CompileError, match=r"error at 3 levels \(node 'first'\)"):
        InferenceSession(network.SerializeToString(), "numpy").run(None, {"X": X})
    assert seen == [3]


def test_error_of_the_network_after_a_kernel_error_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A neuron that cannot tell its output's shape gives an empty one, which the next node does not expect."""
    nodes = [
        pasc_if("X", "theta", "s", "act", 4, 5),
        helper.make_node("Reshape", ["s", "shape"], ["Y"]),
    ]
    network = model(nodes, ["Y"], {"theta": np.array(1)})
    network.graph.initializer.append(onnx.numpy_helper.from_array(np.array([7, 2]), "shape"))
    with pytest.raises(CompileError, match=r"X \[12, 2\] does not hold 5 time steps \(node 'act'\)"):
        InferenceSession(network.SerializeToString(), "numpy").run(None, {"X": X})


@pytest.mark.parametrize(
    "changes",
    [
        {"steps_in": 0},
        {"steps_in": -1},
        {"steps_out": 0},
        {"steps_out": -3},
        {"steps_out": 2**40},
        {"steps_out": 2**62},
        {"levels": 0},
    ],
)
def test_attributes_that_make_no_sense(changes: dict[str, int]) -> None:
    options: dict[str, Any] = {"levels": 4, "steps_in": 4, "steps_out": 4} | changes
    with pytest.raises(CompileError, match="node 'act'"):
        InferenceSession(one_pasc_if(1.0, **options), "numpy").run(None, {"X": X})


@pytest.mark.parametrize("phi", [0.5, 1 / 3, 0.50000012, 1e-20, 0.0])
@pytest.mark.parametrize("kernels", [pasc_if_model, one_qcfs])
def test_phi_reaches_the_kernel_exactly(phi: float, kernels: Callable[..., bytes]) -> None:
    """Currents for which u is an integer, up to the last bits of phi."""
    x = (np.arange(-20, 20, dtype=np.float32) - np.float32(phi)).reshape(-1, 1)
    network = kernels(threshold=16.0, levels=16, phi=phi)
    expected = InferenceSession(network).run(None, {"X": x})[0]
    np.testing.assert_array_equal(InferenceSession(network, "numpy").run(None, {"X": x})[0], expected)


def test_a_session_of_ones_own(capfd: pytest.CaptureFixture[str]) -> None:
    session = ort.InferenceSession(one_pasc_if(label="own"), session_options(threads=1))
    expected = InferenceSession(one_pasc_if()).run(None, {"X": X})[0]
    np.testing.assert_array_equal(session.run(None, {"X": X})[0], expected)
    assert np.isnan(session.run(None, {"X": X[:11]})[0]).all()
    assert "PascIF 'own' gives NaN" in (printed := capfd.readouterr().err)
    assert "does not hold 4 time steps" in printed


def test_registration_happens_once() -> None:
    register.register()
    before = dict(register._registered)
    session_options()
    session_options()
    assert register._registered == before
    assert {kernel.operator.name for kernel in before.values()} == set(KERNELS)


def test_other_python_operators_go_on_working() -> None:
    @onnx_op(op_type="Twice", inputs=[PyCustomOpDef.dt_float], outputs=[PyCustomOpDef.dt_float])
    def twice(x: Any) -> Any:
        return 2 * x

    network = onnx.load_from_string(one_pasc_if())
    network.graph.node.append(helper.make_node("Twice", ["Y"], ["Z"], domain="ai.onnx.contrib"))
    network.graph.output.append(helper.make_tensor_value_info("Z", TensorProto.FLOAT, None))
    network.opset_import.append(helper.make_opsetid("ai.onnx.contrib", 1))
    y, z = InferenceSession(network.SerializeToString(), "numpy").run(None, {"X": X})
    assert y.any()
    np.testing.assert_array_equal(z, 2 * y)


def test_the_shipped_handler_can_run_the_kernels() -> None:
    session = InferenceSession(one_pasc_if(), "numpy")
    expected = session.run(None, {"X": X})[0]
    PyCustomOpDef.install_hooker(_ocos._on_pyop_invocation)
    try:
        np.testing.assert_array_equal(session.run(None, {"X": X})[0], expected)
        with pytest.raises(CompileError, match="node 'act'"):
            session.run(None, {"X": X[:11]})
    finally:
        PyCustomOpDef.install_hooker(register._handle)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_kernels_run_on_the_calling_thread(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    seen: set[int] = set()

    def kernel(x: Any, *_: Any, **__: Any) -> Any:
        seen.add(threading.get_ident())
        return np.zeros_like(x)

    replace_kernel(monkeypatch, kernel)
    session = InferenceSession(one_pasc_if(), "numpy", threads=threads)
    for _ in range(10):
        session.run(None, {"X": np.zeros((4000, 50), np.float32)})
    assert seen == {threading.get_ident()}


def test_native_kernels_do_not_load_the_library() -> None:
    """It imports torch where that is installed."""
    script = f"""
        import sys, numpy as np
        from pascalc.runtime import InferenceSession

        InferenceSession({one_pasc_if()!r}).run(None, {{"X": np.ones((4, 2), np.float32)}})
        assert not {{"torch", "onnxruntime_extensions"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=60, check=True)


@pytest.mark.parametrize("given", [None, "upb"])
def test_the_library_leaves_the_environment_as_it_is(given: str | None) -> None:
    """It has processes that are started later read ONNX files with protobuf in Python, ten times slower."""
    script = f"""
        import os
        from concurrent.futures import ThreadPoolExecutor
        from pascalc.runtime import InferenceSession

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: InferenceSession({one_pasc_if()!r}, "numpy"), range(8)))
        assert os.environ.get("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION") == {given!r}
    """
    environment = {k: v for k, v in os.environ.items() if k != "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"}
    environment |= {} if given is None else {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": given}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    subprocess.run(command, timeout=60, check=True, env=environment)


def test_the_process_survives_kernel_errors() -> None:
    """In a process of its own, because without the guard the process would end."""
    script = f"""
        from concurrent.futures import ThreadPoolExecutor
        import numpy as np
        from pascalc.errors import CompileError
        from pascalc.runtime import InferenceSession, register
        from pascalc.runtime.kernels import KERNELS, Kernel

        network = {one_pasc_if()!r}
        with ThreadPoolExecutor(8) as pool:  # the first sessions of the process, all at once
            *_, session = pool.map(lambda _: InferenceSession(network, "numpy"), range(8))
        assert len(register._registered) == len(KERNELS)
        x = np.ones((12, 2), np.float32)
        good = session.run(None, {{"X": x}})[0]
        for bad in ({{"X": x[:11]}}, {{"X": x[:3]}}, {{"X": np.array(1, np.float32)}}):
            try:
                session.run(None, bad)
            except CompileError as error:
                print(error)
        def recursion(*_, **__):
            return recursion()
        kept = dict(register._registered)
        for number, kernel in kept.items():
            register._registered[number] = Kernel(kernel.operator, recursion)
        try:
            session.run(None, {{"X": x}})
        except CompileError as error:
            print(type(error.__cause__).__name__)
        register._registered.update(kept)
        assert (session.run(None, {{"X": x}})[0] == good).all()
        print("alive")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60, check=False
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert len(lines) == 5
    assert all("does not hold 4 time steps (node 'act')" in line for line in lines[:3])
    assert lines[3:] == ["RecursionError", "alive"]
