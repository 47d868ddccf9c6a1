"""What every operator of the domain ``ai.pascalc`` is made of, written down once.

An :class:`Operator` holds the documentation, the attributes and the body in standard ONNX operators. From it come
the ``FunctionProto`` that the emitted file carries, the schema of the NumPy library and the table in docs/.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import onnx
import onnx.parser

DOMAIN = "ai.pascalc"
DOMAIN_VERSION = 1

#: The oldest opset that the bodies are written for: CastLike and Shape(start) came with it.
MIN_OPSET = 15

AttributeType = Literal["int", "float", "string"]


@dataclass(frozen=True)
class Attribute:
    """One attribute: its name, its ONNX type and one line of documentation."""

    name: str
    type: AttributeType
    doc: str


#: By this the neurons of two files are paired.
LABEL = Attribute("label", "string", "the name of the neuron in the source network")


@dataclass(frozen=True)
class Operator:
    """An operator of the domain ``ai.pascalc``.

    ``body`` is ONNX text: the statements between the braces of a function, in standard operators. It refers to the
    attributes as ``@name``. Bodies are rank-agnostic and float-type-agnostic.
    """

    name: str
    doc: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    attributes: tuple[Attribute, ...]
    body: str

    def function(self, opset: int) -> onnx.FunctionProto:
        """The function body for a model of the given opset (at least :data:`MIN_OPSET`)."""
        return _function(self, opset)

    def __hash__(self) -> int:
        return hash(self.name)


@cache
def _function(operator: Operator, opset: int) -> onnx.FunctionProto:
    attributes = ", ".join(a.name for a in operator.attributes)
    text = (
        f'<domain: "{DOMAIN}", opset_import: ["": {opset}]>\n'
        f"{operator.name} <{attributes}> ({', '.join(operator.inputs)}) => ({', '.join(operator.outputs)})\n"
        f"{{{operator.body}}}"
    )
    function = onnx.parser.parse_function(text)
    function.doc_string = operator.doc
    return function
