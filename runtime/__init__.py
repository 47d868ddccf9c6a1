"""Running spiking networks: the neurons' NumPy kernels, in onnxruntime and in the ONNX reference evaluator."""

from __future__ import annotations

from pascalc.runtime.kernels import Events
from pascalc.runtime.reference import reference_ops
from pascalc.runtime.session import RUNTIME_ERRORS, InferenceSession, session_options

__all__ = ["RUNTIME_ERRORS", "Events", "InferenceSession", "reference_ops", "session_options"]
