"""Trained models of other libraries as cells and parameters, and back.

One pair of functions for each library; the numbers are the same on both sides:

    cell, params = convert.from_torch(module)       its module, its state dict, or its arrays by name
    module = convert.to_torch(cell, params)         the library's module, or its arrays by name

    from_torch          to_torch            PyTorch's nn.RNN, nn.LSTM, nn.GRU and cells; torch_arrays: without PyTorch
    from_keras          to_keras            Keras 3's layers and cells; keras_arrays: without Keras
    from_flax           to_flax             Flax's linen and nnx cells
    from_haiku          to_haiku            parameters of Haiku's cores
    from_equinox        to_equinox          Equinox's cells; equinox_arrays: without Equinox
    from_cudnn          to_cudnn            flat weights of jax.experimental.rnn, also in the order of ROCm
    from_tensorflow1    to_tensorflow1      variables of TensorFlow 1's cells
    from_element_research, to_element_research      arrays of Torch 7's rnn package
    from_safetensors    to_safetensors      a file that holds the parameters and describes the cell

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

from jaxrnn.convert.cudnn import from_cudnn, to_cudnn
from jaxrnn.convert.element_research import from_element_research, to_element_research
from jaxrnn.convert.equinox import equinox_arrays, from_equinox, to_equinox
from jaxrnn.convert.flax import from_flax, to_flax
from jaxrnn.convert.haiku import from_haiku, to_haiku
from jaxrnn.convert.keras import from_keras, keras_arrays, to_keras
from jaxrnn.convert.onnx import from_onnx, to_onnx
from jaxrnn.convert.safetensors import from_safetensors, to_safetensors
from jaxrnn.convert.tensorflow1 import from_tensorflow1, to_tensorflow1
from jaxrnn.convert.torch import from_torch, to_torch, torch_arrays

__all__ = [
    "equinox_arrays",
    "from_cudnn",
    "from_element_research",
    "from_equinox",
    "from_flax",
    "from_haiku",
    "from_keras",
    "from_onnx",
    "from_safetensors",
    "from_tensorflow1",
    "from_torch",
    "keras_arrays",
    "to_cudnn",
    "to_element_research",
    "to_equinox",
    "to_flax",
    "to_haiku",
    "to_keras",
    "to_onnx",
    "to_safetensors",
    "to_tensorflow1",
    "to_torch",
    "torch_arrays",
]
