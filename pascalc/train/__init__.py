"""Training side, in PyTorch: the QCFS module, the replacement of ReLU, layerwise levels, and the ONNX export.

Only this package imports torch (``pip install 'pascalc[torch]'``).
"""

from pascalc.train.export import export
from pascalc.train.plan import apply_plan, level_histograms
from pascalc.train.qcfs import QCFS
from pascalc.train.replace import replace_relu

__all__ = ["QCFS", "apply_plan", "export", "level_histograms", "replace_relu"]
