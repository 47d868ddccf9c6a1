"""pascalc: compile a trained QCFS network into the mathematically identical spiking network.

    import pascalc
    pascalc.compile("model.onnx", "model.snn.onnx")
    pascalc.verify("model.onnx", "model.snn.onnx", "data.npz").equivalent

``pascalc.runtime`` runs spiking networks, ``pascalc.train`` (needs PyTorch) trains source networks.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pascalc.errors import CompileError

if TYPE_CHECKING:
    from pascalc.compiler import compile_model as compile
    from pascalc.evaluator import evaluate
    from pascalc.inspector import inspect
    from pascalc.planning.plan import plan
    from pascalc.planning.planner import plan_by_budget, plan_by_metric, plan_by_steps
    from pascalc.reporter import report
    from pascalc.verifier import verify
    from pascalc.version import __version__

__all__ = [
    "CompileError",
    "__version__",
    "compile",
    "evaluate",
    "inspect",
    "plan",
    "plan_by_budget",
    "plan_by_metric",
    "plan_by_steps",
    "report",
    "verify",
]

# Loaded when first asked for, so that `import pascalc.train` or `pascalc --help` do not wait for onnxruntime.
_LAZY = {
    "compile": ("pascalc.compiler", "compile_model"),
    "evaluate": ("pascalc.evaluator", "evaluate"),
    "inspect": ("pascalc.inspector", "inspect"),
    "plan": ("pascalc.planning.plan", "plan"),
    "plan_by_budget": ("pascalc.planning.planner", "plan_by_budget"),
    "plan_by_metric": ("pascalc.planning.planner", "plan_by_metric"),
    "plan_by_steps": ("pascalc.planning.planner", "plan_by_steps"),
    "report": ("pascalc.reporter", "report"),
    "verify": ("pascalc.verifier", "verify"),
    "__version__": ("pascalc.version", "__version__"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'pascalc' has no attribute '{name}'")
    module, attribute = _LAZY[name]
    found = getattr(import_module(module), attribute)
    if callable(found):
        found = import_module("pascalc.entry").entry(name, found)
    globals()[name] = found
    return found
