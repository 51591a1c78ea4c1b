"""ONNX: models of recurrent layers as networks, and networks as models.

`importing` reads a graph, `export` writes one; both make of one direction of a recurrent node a cell, and of a cell one
direction of a node, by `nodes`.
"""

from jaxrnn.convert.onnx.activations import OnnxActivation
from jaxrnn.convert.onnx.export import to_onnx
from jaxrnn.convert.onnx.importing import from_onnx

__all__ = ["OnnxActivation", "from_onnx", "to_onnx"]
