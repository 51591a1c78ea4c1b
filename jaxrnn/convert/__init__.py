"""Trained models of other libraries as cells and parameters, and back.

One pair of functions for each library; the numbers are the same on both sides:

    cell, params = convert.from_torch(module)       its module, its state dict, or its arrays by name
    module = convert.to_torch(cell, params)         the library's module, or its arrays by name

The other library is imported only to make one of its modules; with arrays it need not be installed. What the other side
cannot express is a `ValueError` that says what and why, never an approximation. Parameters keep their dtype; float64
arrays need `jax.enable_x64(True)`.

>>> import numpy as np
>>> from jaxrnn import convert
>>> weights = {"weight_ih_l0": np.ones((12, 3), np.float32), "weight_hh_l0": np.ones((12, 4), np.float32)}
>>> cell, params = convert.from_torch(weights)
>>> cell
GRU(input_size=3, hidden_size=4, use_bias=False)
>>> sorted(convert.torch_arrays(cell, params))
['weight_hh_l0', 'weight_ih_l0']
"""

from jaxrnn.convert.onnx import from_onnx, to_onnx
from jaxrnn.convert.torch import from_torch, to_torch, torch_arrays

__all__ = ["from_onnx", "from_torch", "to_onnx", "to_torch", "torch_arrays"]
