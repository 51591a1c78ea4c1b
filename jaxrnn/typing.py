"""The names that signatures use."""

from collections.abc import Callable
from typing import Any

import jax

Array = jax.Array
Key = jax.Array
"""A typed key, `jax.random.key(seed)`."""
DTypeLike = jax.typing.DTypeLike
PyTree = Any
Params = Any
"""A cell's parameters: a NamedTuple pytree of arrays."""
State = Any
"""A cell's state: a NamedTuple pytree of arrays `[*batch, ...]`."""
Activation = Callable[[Array], Array]
Initializer = Callable[..., Array]
"""`initializer(key, shape, dtype) -> array`, as in `jax.nn.initializers`."""
