"""The names that signatures use."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import jax.export

Array = jax.Array
Key = jax.Array
"""A typed key, `jax.random.key(seed)`."""
DTypeLike = jax.typing.DTypeLike
PyTree = Any
Params = Any
"""A cell's parameters: a NamedTuple pytree of arrays."""
State = Any
"""A cell's state: a NamedTuple pytree of arrays `[*batch, ...]`."""
P = TypeVar("P")
"""The parameters of a generic layer."""
S = TypeVar("S")
"""The state of a generic layer."""
Activation = Callable[[Array], Array]
Initializer = Callable[..., Array]
"""`initializer(key, shape, dtype) -> array`, as in `jax.nn.initializers`."""


def register_named_tuples(namespace: dict[str, Any], names: Iterable[str]) -> None:
    """Makes the NamedTuples among `names` serializable by `jax.export`, under their names."""
    for name in names:
        kind = namespace[name]
        if isinstance(kind, type) and issubclass(kind, tuple):
            jax.export.register_namedtuple_serialization(kind, serialized_name=f"jaxrnn.{name}")
