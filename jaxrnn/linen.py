"""Any cell as a Flax linen module, and Flax's linen cells as cells.

    Cell(cell)                          an `nn.RNNCellBase`: one time step, inside Flax's own `nn.RNN`
    RNN(cell)                           a whole sequence by `jaxrnn.unroll`
    from_flax(flax_cell, input_size)    the way back: a cell

The collection "params" holds the cell's parameters by their names: `{"w_x": ..., "w_h": ..., "b": ...}`. Nested cells
add a level: `{"0": {"w_x": ...}, "1": ...}` in a `Stack`. `jaxrnn.linen.RNN(cell)` and
`flax.linen.RNN(jaxrnn.linen.Cell(cell))` have the same parameters at the same paths, under "cell".
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from flax.core import FrozenDict

from jaxrnn import _flax
from jaxrnn._flax import FlaxCell
from jaxrnn.checks import check_bools
from jaxrnn.engine.layer import Layer, state_dtype
from jaxrnn.engine.newton import Newton
from jaxrnn.engine.options import Path, Save
from jaxrnn.typing import Array, DTypeLike, Key, Params, PyTree, State

__all__ = ["RNN", "Cell", "from_dict", "from_flax", "to_dict"]

_WAY = "jaxrnn.linen.from_flax(cell, input_size=…) makes one"


class Cell(nn.RNNCellBase):
    """A cell with its parameters: one time step, as Flax's `nn.RNN` and `nn.Bidirectional` run it.

    The carry is the cell's state, a NamedTuple, so its order does not matter.

    A single step is deterministic: inside Flax's `nn.RNN`, a cell with dropout never drops, whatever `rngs` hold. To
    train with dropout, use `RNN` below. To run sequences with the parameters of this module, pass `parameters()` to
    `jaxrnn.unroll`.

    Args:
        cell: any jaxrnn cell, a `Stack` too.
        dtype: dtype of the computation; None: parameters and inputs promote. The carry stays float32 or wider.
        param_dtype: dtype of fresh parameters.
        sharding: mesh axes by the last part of a parameter's name, `{"w_h": (None, "model")}`: the metadata of
            `nn.with_partitioning`.
        initializers: keyword arguments of `cell.init`.

    Raises:
        TypeError: `cell` is not a jaxrnn cell, or, at the first call, takes no such initializer.
        ValueError: at the first call, `sharding` names no parameter.

    Example:
        >>> import jaxrnn
        >>> cell = Cell(jaxrnn.LSTM(3, 4), initializers={"forget_bias": 2.0})
        >>> x = jnp.ones((2, 3))
        >>> carry = cell.initialize_carry(jax.random.key(0), x.shape)
        >>> variables = cell.init(jax.random.key(1), carry, x)
        >>> sorted(variables["params"])
        ['b', 'w_h', 'w_x']
        >>> carry, y = cell.apply(variables, carry, x)
        >>> carry.c.shape, y.shape
        ((2, 4), (2, 4))
        >>> nn.RNN(cell).init_with_output(jax.random.key(0), jnp.ones((2, 5, 3)))[0].shape  # Flax's own
        (2, 5, 4)
    """

    cell: Layer
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    sharding: _flax.Sharding = FrozenDict()
    initializers: Mapping[str, Any] = FrozenDict()

    def __post_init__(self) -> None:
        _flax.check_cell(self.cell, nn.RNNCellBase, _WAY)
        super().__post_init__()

    def __call__(self, carry: State, inputs: PyTree, *, reset: Array | None = None) -> tuple[State, PyTree]:
        """Runs one time step: `(carry, y)` from inputs `[*batch, I]`; rows that `reset` `[*batch]` flags begin anew."""
        params, inputs = _flax.in_dtype(self.dtype, self.parameters(), inputs)
        return self.cell(params, carry, inputs, reset=reset)

    @nn.compact
    def parameters(self) -> Params:
        """Returns the parameters in the structure of `cell.init`, for `jaxrnn.unroll`; creates them during `init`."""
        spec = jax.eval_shape(self.cell.init, jax.random.key(0))
        absent = not all(self.has_variable("params", name) for name in to_dict(spec))
        if absent and self.is_mutable_collection("params"):
            # One key for all parameters, as `cell.init` takes one.
            fresh = self.cell.init(self.make_rng("params"), dtype=self.param_dtype, **self.initializers)
            axes = _flax.sharding_names(self.sharding, fresh)
            boxed = {path: _box(leaf, axes[path]) for path, leaf in _flax.by_name(fresh).items()}
            for name, value in traverse_util.unflatten_dict(boxed, sep="/").items():
                self.param(name, lambda _, value=value: value)
        return _flax.from_names(spec, nn.unbox(self.variables.get("params", {})), self.path)

    @nn.nowrap
    def initialize_carry(self, rng: Key, input_shape: tuple[int, ...]) -> State:
        """Returns the zero state for one time step's input of the shape `[*batch, I]`; ignores `rng`."""
        del rng
        dtype = self.param_dtype if self.dtype is None else self.dtype
        return _flax.initial_carry(self.cell, input_shape, state_dtype(jnp.zeros((), dtype), ()))

    @property
    def num_feature_axes(self) -> int:
        """Number of axes of one example's input; all axes before them are batch axes."""
        return _flax.feature_axes(self.cell)


class RNN(nn.Module):
    """A module that runs a cell over whole sequences, by `jaxrnn.unroll`.

    A call always returns `(state, ys)`, and `ys` has the order of `xs`. (Flax's `nn.RNN` needs the flags `return_carry`
    and `keep_order` for these.) Outputs beyond `seq_lengths` are zero. The state is the one after each row's last valid
    step.

    A cell with randomness takes one key of the stream "dropout" for each call, if `apply` gets one:
    `rnn.apply(variables, xs, rngs={"dropout": key})` trains, `rnn.apply(variables, xs)` evaluates. The key is a typed
    key or a `jax.random.PRNGKey`.

    Args:
        cell: any jaxrnn cell, a `Stack` or a `Bidirectional` too.
        dtype: dtype of the computation; None: parameters and inputs promote.
        param_dtype: dtype of fresh parameters.
        sharding, initializers: as in `Cell`, which holds the parameters.
        time_major: inputs are `[T, *batch, I]` instead of `[*batch, T, I]`.

    Raises:
        TypeError, ValueError: as in `Cell`.

    Example:
        >>> import jaxrnn
        >>> rnn = RNN(jaxrnn.Stack((jaxrnn.LSTM(3, 8), jaxrnn.GRU(8, 4)), dropout=0.5))
        >>> xs = jnp.ones((2, 5, 3))                            # [B, T, I]
        >>> variables = rnn.init(jax.random.key(0), xs)
        >>> (lstm, gru), ys = rnn.apply(variables, xs, seq_lengths=jnp.array([5, 2]))
        >>> lstm.c.shape, ys.shape, bool(jnp.all(ys[1, 2:] == 0))
        ((2, 8), (2, 5, 4), True)
        >>> _, noisy = rnn.apply(variables, xs, rngs={"dropout": jax.random.key(1)})
        >>> bool(jnp.all(noisy == ys))
        False
        >>> variables["params"]["cell"]["1"]["w_h"].shape
        (4, 12)
    """

    cell: Layer
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32
    sharding: _flax.Sharding = FrozenDict()
    initializers: Mapping[str, Any] = FrozenDict()
    time_major: bool = False

    def __post_init__(self) -> None:
        _flax.check_cell(self.cell, nn.RNNCellBase, _WAY)
        check_bools(time_major=self.time_major)
        super().__post_init__()

    def setup(self) -> None:
        """Makes the module that holds the parameters, under "cell"."""
        self._cell = Cell(self.cell, self.dtype, self.param_dtype, self.sharding, self.initializers, name="cell")

    @nn.nowrap
    def initialize_carry(self, rng: Key, input_shape: tuple[int, ...]) -> State:
        """Returns the state before the first time step, for one time step's input `[*batch, I]`, as `Cell` does."""
        return Cell(self.cell, self.dtype, self.param_dtype).initialize_carry(rng, input_shape)

    def step(self, carry: State, inputs: PyTree, *, reset: Array | None = None) -> tuple[State, PyTree]:
        """Runs one time step with the same parameters, without dropout: `(carry, y)` from inputs `[*batch, I]`.

        Rows that `reset` `[*batch]` flags begin a new sequence with this step.
        """
        return self._cell(carry, inputs, reset=reset)

    def __call__(
        self,
        xs: PyTree,
        *,
        initial_carry: State | None = None,
        seq_lengths: Array | None = None,
        resets: Array | None = None,
        reverse: bool = False,
        chunk: int | None = None,
        save: Save = "auto",
        path: Path = "auto",
        solver: Newton | None = None,
    ) -> tuple[State, PyTree]:
        """Runs a sequence: `(state, ys)`.

        Args:
            xs: inputs `[*batch, T, I]`, or `[T, *batch, I]` if `time_major`.
            initial_carry: the state before the first step, leaves `[*batch, ...]`; None: the cell's initial
                state. It gets gradients.
            seq_lengths: `[*batch]` integers in 0..T; None: all T.
            resets: booleans `[*batch, T]`, or `[T, *batch]` if `time_major`: flagged steps begin a new sequence.
            reverse: run from each row's last valid step to its first.
            chunk: number of time steps that are projected at once, as in `jaxrnn.unroll`.
            save: what reverse mode keeps: "auto", "states", "boundaries", "residuals" or a policy, as in
                `jaxrnn.unroll`.
            path: "auto", "scan" or "native", as in `jaxrnn.unroll`.
            solver: a `jaxrnn.Newton`, as in `jaxrnn.unroll`; None: no solver.

        Returns:
            `(state, ys)`: the state after each row's last valid step, and outputs in the order and layout of `xs`.

        Raises:
            TypeError, ValueError: an argument is not of the needed structure, shape, dtype or range.
        """
        return _flax.run(
            self.cell,
            self._cell.parameters(),
            xs,
            initial_carry,
            lengths=seq_lengths,
            resets=resets,
            reverse=reverse,
            chunk=chunk,
            save=save,
            path=path,
            solver=solver,
            key=self.make_rng("dropout") if self.has_rng("dropout") else None,
            dtype=self.dtype,
            time_major=self.time_major,
        )


def _box(value: Array, axes: tuple[str | None, ...] | None) -> Any:
    return value if axes is None else nn.with_partitioning(lambda: value, axes)()


def to_dict(params: Params) -> dict[str, Any]:
    """Turns parameters of a cell into the nested dict of a "params" collection, without those that are None.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.GRU(3, 4, use_bias=False)
        >>> tree = to_dict(cell.init(jax.random.key(0)))
        >>> sorted(tree)
        ['w_h', 'w_x']
        >>> state, ys = RNN(cell).apply({"params": {"cell": tree}}, jnp.ones((2, 5, 3)))
        >>> ys.shape
        (2, 5, 4)
    """
    return traverse_util.unflatten_dict(_flax.by_name(params), sep="/")


def from_dict(cell: Layer, tree: Mapping[str, Any]) -> Params:
    """Turns the nested dict of a "params" collection into parameters of `cell`, the inverse of `to_dict`.

    Raises:
        ValueError: the names differ from those of the cell's parameters.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.GRU(3, 4)
        >>> xs = jnp.ones((2, 5, 3))
        >>> variables = RNN(cell).init(jax.random.key(0), xs)
        >>> params = from_dict(cell, variables["params"]["cell"])
        >>> params.b_n.shape
        (4,)
    """
    return _flax.from_names(jax.eval_shape(cell.init, jax.random.key(0)), nn.unbox(tree))


def from_flax(flax_cell: nn.RNNCellBase, input_size: int | tuple[int, ...]) -> FlaxCell:
    """Turns a Flax linen cell into a jaxrnn cell; `unroll` gives the same values as `nn.RNN`.

    The cell gets lengths, resets, a reverse direction, `Stack`, `Bidirectional`, and the derivative rule of `unroll`.
    The parameters are the Flax cell's collection "params". The state is the Flax cell's carry.

    Args:
        flax_cell: any `nn.RNNCellBase` whose variables are all in "params".
        input_size: length of the last axis of the input, or the shape of one example's input where that has more
            axes: `(height, width, channels)` for an `nn.ConvLSTMCell`.

    Raises:
        TypeError: `flax_cell` is not a linen cell.
        ValueError: `input_size` has the wrong number of axes, or the cell has variables outside of "params".

    Example:
        >>> import jaxrnn
        >>> flax_cell = nn.OptimizedLSTMCell(4)
        >>> cell = from_flax(flax_cell, input_size=3)
        >>> params = cell.init(jax.random.key(0))
        >>> xs = jnp.ones((5, 2, 3))                            # [T, B, I]
        >>> state, ys = jaxrnn.unroll(cell, params, xs)
        >>> theirs = nn.RNN(flax_cell, time_major=True).apply({"params": {"cell": params}}, xs)
        >>> bool(jnp.allclose(ys, theirs, atol=1e-6))
        True
    """
    if not isinstance(flax_cell, nn.RNNCellBase):
        raise TypeError(f"flax_cell: got {type(flax_cell).__name__}, needs an nn.RNNCellBase")
    axes = 1 if isinstance(input_size, int) else len(input_size)
    if axes != flax_cell.num_feature_axes:
        raise ValueError(
            f"input_size: got {input_size}, {type(flax_cell).__name__} needs {flax_cell.num_feature_axes} sizes"
        )
    # A cell created inside another module would be its child.
    recipe = _Recipe(flax_cell.clone(parent=None))
    cell = FlaxCell(recipe, input_size)
    variables = jax.eval_shape(lambda key: recipe.variables(key, cell.input_spec.shape), jax.random.key(0))
    if others := sorted(set(variables) - {"params"}):
        raise ValueError(f"flax_cell: got variables in the collections {others}, needs params only")
    return cell


class _Recipe(NamedTuple):
    module: nn.RNNCellBase

    def __repr__(self) -> str:
        fields = ((f, getattr(self.module, f.name)) for f in dataclasses.fields(self.module) if f.name != "parent")
        options = (f"{f.name}={getattr(v, '__name__', v)}" for f, v in fields if v is not f.default and v != f.default)
        return f"{type(self.module).__name__}({', '.join(options)})"

    def variables(self, key: Key, input_shape: tuple[int, ...]) -> Mapping[str, Any]:
        carry = self.module.initialize_carry(key, input_shape)
        return self.module.init(key, carry, jnp.zeros(input_shape))

    def init(self, key: Key, input_shape: tuple[int, ...]) -> Params:
        return nn.unbox(self.variables(key, input_shape)).get("params", {})

    def carry(self, params: Params, input_shape: tuple[int, ...]) -> State:
        del params
        return self.module.initialize_carry(jax.random.key(0), input_shape)

    def apply(self, params: Params, carry: State, x: Array) -> tuple[State, Array]:
        return self.module.apply({"params": params}, carry, x)  # type: ignore[return-value]
