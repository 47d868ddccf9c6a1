"""Training side, in PyTorch: the QCFS module, the replacement of ReLU, and the ONNX export.

Only this package imports torch (``pip install 'pascalc[torch]'``).
"""

from pascalc.train.export import export
from pascalc.train.qcfs import QCFS
from pascalc.train.replace import replace_relu

__all__ = ["QCFS", "export", "replace_relu"]
