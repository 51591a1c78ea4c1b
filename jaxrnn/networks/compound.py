"""Base class of networks that are made of several cells."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxrnn.engine.layer import Layer
from jaxrnn.typing import DTypeLike, Key, P, Params, PyTree, S

__all__ = ["Compound"]


class Compound(Layer[P, S]):
    """Base class for networks of several cells: parameters and state have one entry for each cell. Abstract.

    A subclass has `cells`, the first of which sees the input, and defines `run`, `output_size` and `with_cells`.
    """

    cells: Any

    # Of an iterable of what each cell has.
    _make_params: ClassVar[Any] = tuple
    _make_state: ClassVar[Any] = tuple

    @property
    def input_size(self) -> Any:
        """Input size of the first cell."""
        return self.cells[0].input_size

    @property
    def hidden_size(self) -> tuple[Any, ...]:
        """Hidden sizes of the cells."""
        return tuple(cell.hidden_size for cell in self.cells)

    @property
    def needs_state(self) -> str:
        """What the first of the cells that needs a state says."""
        return next(filter(None, (cell.needs_state for cell in self.cells)), "")

    @property
    def init_names(self) -> frozenset[str]:
        """Names of the initializers that one of the cells takes."""
        return frozenset[str]().union(*(cell.init_names for cell in self.cells))

    @property
    def input_spec(self) -> PyTree:
        """Input of the first cell."""
        return self.cells[0].input_spec

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32, **initializers: Any) -> P:
        """Returns fresh parameters of every cell; each of the `initializers` goes to all cells that take it.

        For options of one cell alone, make the tuple: `(gru.init(k1, input_init=zeros), gru.init(k2))` of a `Stack`,
        the `BidirectionalParams` of a `Bidirectional`.
        """
        if unknown := initializers.keys() - self.init_names:
            raise TypeError(f"init: got {sorted(unknown)}, {self} takes {sorted(self.init_names)}")

        def one(cell: Layer, key: Key) -> Params:
            taken = {name: value for name, value in initializers.items() if name in cell.init_names}
            return cell.init(key, dtype=dtype, **taken)

        return self._make_params(map(one, self.cells, jax.random.split(key, len(self.cells))))

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> S:
        """Returns the zero state of every cell."""
        return self._make_state(cell.initial_state(batch_shape, dtype) for cell in self.cells)

    def restart(self, params: Any, state: Any, batch_shape: tuple[int, ...]) -> S:
        """Returns the state in which each cell begins."""
        return self._make_state(c.restart(p, s, batch_shape) for c, p, s in zip(self.cells, params, state, strict=True))
