"""Any cell as a Flax nnx module, and Flax's nnx cells as cells.

    Cell(cell, rngs=rngs)       an `nnx.RNNCellBase`: one time step, inside Flax's own `nnx.RNN`
    RNN(cell, rngs=rngs)        a whole sequence by `jaxrnn.unroll`
    from_flax(flax_cell)        the way back: a cell, and `params_of(flax_cell)` its parameters

Parameters are `nnx.Param`s in the structure of the cell's parameters: `module.params.w_x`, or in a `Stack`
`rnn.cell.params[0].w_x`. `jaxrnn.nnx.RNN(cell)` and `flax.nnx.RNN(jaxrnn.nnx.Cell(cell))` have the same parameters at
the same paths.
"""

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxrnn import _flax
from jaxrnn._flax import FlaxCell
from jaxrnn.checks import check_bools, check_params
from jaxrnn.engine.layer import Layer, state_dtype
from jaxrnn.engine.newton import Newton
from jaxrnn.engine.options import Path, Save
from jaxrnn.typing import Array, DTypeLike, Initializer, Key, Params, PyTree, State

__all__ = ["RNN", "Cell", "from_flax", "params_of"]


class Cell(nnx.RNNCellBase):
    """A cell with its parameters: one time step, as Flax's `nnx.RNN` and `nnx.Bidirectional` run it.

    The carry is the cell's state, a NamedTuple, so its order does not matter.

    A single step is deterministic: inside Flax's `nnx.RNN`, whose `rngs` are for the initial carry, a cell with dropout
    never drops. To train with dropout, use `RNN` below.

    Args:
        cell: any jaxrnn cell, a `Stack` too.
        params: existing parameters, as from `cell.init`; None: fresh ones.
        rngs: streams of keys; the stream `params` is used. Not needed with `params`.
        dtype: dtype of the computation; None: parameters and inputs promote. The carry stays float32 or wider.
        param_dtype: of fresh parameters; None: float32.
        sharding: mesh axes by the last part of a parameter's name, `{"w_h": (None, "model")}`: the metadata of
            `nnx.with_partitioning`. Flax places the parameters on the mesh that is active when they are created.
        initializers: keyword arguments of `cell.init`.

    Raises:
        TypeError: `cell` is not a jaxrnn cell, or takes no such initializer.
        ValueError: `rngs` and `params` are both given or both not, or `sharding` names no parameter.

    Example:
        >>> import jaxrnn
        >>> cell = Cell(jaxrnn.LSTM(3, 4), rngs=nnx.Rngs(0), initializers={"forget_bias": 2.0})
        >>> cell.params.w_x.shape
        (3, 16)
        >>> carry = cell.initialize_carry((2, 3))
        >>> carry, y = cell(carry, jnp.ones((2, 3)))
        >>> carry.c.shape, y.shape
        ((2, 4), (2, 4))
        >>> nnx.RNN(cell)(jnp.ones((2, 5, 3))).shape            # Flax's own, [B, T, I] -> [B, T, H]
        (2, 5, 4)
    """

    def __init__(
        self,
        cell: Layer,
        *,
        params: Params | None = None,
        rngs: nnx.Rngs | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike | None = None,
        sharding: _flax.Sharding | None = None,
        initializers: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        way = "jaxrnn.nnx.from_flax(cell) makes one, and jaxrnn.nnx.params_of(cell) its params"
        _flax.check_cell(cell, nnx.RNNCellBase, way)
        if params is None:
            if rngs is None:
                raise ValueError("rngs: got None, needs nnx.Rngs, unless params are given")
            if not isinstance(rngs, nnx.Rngs):
                raise TypeError(f"rngs: got {type(rngs).__name__}, needs nnx.Rngs, such as nnx.Rngs(0)")
            key = _stream(rngs, "params")()
            params = cell.init(key, dtype=jnp.float32 if param_dtype is None else param_dtype, **initializers)
        elif initializers or rngs is not None or param_dtype is not None:
            raise ValueError(
                "params: got params and what makes fresh ones (rngs, param_dtype, initializers), needs one"
            )
        else:
            params = nnx.as_pure(params)
            check_params(cell, params)
        axes = iter(_flax.sharding_names(sharding or {}, params).values())
        self.cell = cell
        self.dtype = dtype
        self.params = nnx.data(jax.tree.map(lambda leaf: _param(leaf, next(axes)), params))

    def __call__(self, carry: State, inputs: PyTree, *, reset: Array | None = None) -> tuple[State, PyTree]:
        """Runs one time step: `(carry, y)` from inputs `[*batch, I]`; rows that `reset` `[*batch]` flags begin anew."""
        cell, params = self.pure()
        params, inputs = _flax.in_dtype(self.dtype, params, inputs)
        return cell(params, carry, inputs, reset=reset)

    def pure(self) -> tuple[Any, Params]:
        """Returns the cell and its parameters as arrays: `(cell, params)`, as the functions of this library take them.

        Example:
            >>> import jaxrnn
            >>> decoder = jaxrnn.Attention(jaxrnn.GRU(3 + 5, 4), memory_size=5, memory_steps=6)
            >>> cell, params = Cell(decoder, rngs=nnx.Rngs(0)).pure()
            >>> carry = cell.attend(params, jnp.ones((6, 2, 5)))       # a memory [S, B, M] into the first carry
        """
        return self.cell, nnx.as_pure(self.params)

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Initializer | None = None,
    ) -> State:
        """Returns the state before the first step.

        Args:
            input_shape: `[*batch, I]`, the shape of one time step's input.
            rngs: for `carry_init`; the stream `carry` is used.
            carry_init: `initializer(key, shape, dtype)` of each leaf; None: the cell's zero state, no key needed.

        Raises:
            ValueError: `carry_init` without `rngs`.
        """
        dtype = state_dtype(self.params if self.dtype is None else jnp.zeros((), self.dtype), ())
        state = _flax.initial_carry(self.cell, input_shape, dtype)
        if carry_init is None:
            return state
        if rngs is None:
            raise ValueError("rngs: got None, needs nnx.Rngs for carry_init")
        stream = _stream(rngs, "carry")
        return jax.tree.map(lambda leaf: carry_init(stream(), leaf.shape, leaf.dtype), state)

    @property
    def num_feature_axes(self) -> int:
        """Number of axes of one example's input; all axes before them are batch axes."""
        return _flax.feature_axes(self.cell)


class RNN(nnx.Module):
    """A module that runs a cell over whole sequences, by `jaxrnn.unroll`.

    A call always returns `(state, ys)`, and `ys` has the order of `xs`. (Flax's `nnx.RNN` needs the flags
    `return_carry` and `keep_order` for these.) Outputs beyond `seq_lengths` are zero. The state is the one after each
    row's last valid step.

    A call with `rngs` draws dropout, a call without is deterministic; `train()` and `eval()` change nothing.

    Args:
        cell: any jaxrnn cell, a `Stack` or a `Bidirectional` too.
        params: existing parameters, as from `cell.init`; None: fresh ones.
        rngs: streams of keys for fresh parameters; the stream `params` is used. Not needed with `params`.
        dtype: dtype of the computation; None: parameters and inputs promote.
        param_dtype: of fresh parameters; None: float32.
        sharding, initializers: as in `Cell`, which holds the parameters.
        time_major: inputs are `[T, *batch, I]` instead of `[*batch, T, I]`.

    Raises:
        TypeError, ValueError: as in `Cell`.

    Example:
        >>> import jaxrnn
        >>> rnn = RNN(jaxrnn.Stack((jaxrnn.LSTM(3, 8), jaxrnn.GRU(8, 4)), dropout=0.5), rngs=nnx.Rngs(0))
        >>> xs = jnp.ones((2, 5, 3))                            # [B, T, I]
        >>> (lstm, gru), ys = rnn(xs, seq_lengths=jnp.array([5, 2]))
        >>> lstm.c.shape, ys.shape, bool(jnp.all(ys[1, 2:] == 0))
        ((2, 8), (2, 5, 4), True)
        >>> _, noisy = rnn(xs, rngs=nnx.Rngs(dropout=1))        # training: with dropout
        >>> bool(jnp.all(noisy == ys))
        False
        >>> rnn.cell.params[1].w_h.shape
        (4, 12)
    """

    def __init__(
        self,
        cell: Layer,
        *,
        params: Params | None = None,
        rngs: nnx.Rngs | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike | None = None,
        sharding: _flax.Sharding | None = None,
        time_major: bool = False,
        initializers: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.cell = Cell(
            cell,
            params=params,
            rngs=rngs,
            dtype=dtype,
            param_dtype=param_dtype,
            sharding=sharding,
            initializers=initializers,
        )
        check_bools(time_major=time_major)
        self.time_major = time_major

    def pure(self) -> tuple[Any, Params]:
        """Returns the cell and its parameters as arrays: `(cell, params)`, as the functions of this library take them.

        Example:
            >>> import jaxrnn
            >>> rnn = RNN(jaxrnn.LSTM(3, 4), time_major=True, rngs=nnx.Rngs(0))
            >>> xs = jnp.ones((5, 2, 3))
            >>> bool((rnn(xs)[1] == jaxrnn.unroll(*rnn.pure(), xs)[1]).all())
            True
        """
        return self.cell.pure()

    def initialize_carry(
        self,
        input_shape: tuple[int, ...],
        rngs: nnx.Rngs | nnx.RngStream | None = None,
        carry_init: Initializer | None = None,
    ) -> State:
        """Returns the state before the first time step, for one time step's input `[*batch, I]`, as `Cell` does."""
        return self.cell.initialize_carry(input_shape, rngs, carry_init)

    def step(self, carry: State, inputs: PyTree, *, reset: Array | None = None) -> tuple[State, PyTree]:
        """Runs one time step with the same parameters, without dropout: `(carry, y)` from inputs `[*batch, I]`.

        Rows that `reset` `[*batch]` flags begin a new sequence with this step.
        """
        return self.cell(carry, inputs, reset=reset)

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
        rngs: nnx.Rngs | nnx.RngStream | None = None,
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
            rngs: for cells with randomness; each call takes one key of the stream `dropout`. None: deterministic.

        Returns:
            `(state, ys)`: the state after each row's last valid step, and outputs in the order and layout of `xs`.

        Raises:
            TypeError, ValueError: an argument is not of the needed structure, shape, dtype or range.
        """
        stream = None if rngs is None else _stream(rngs, "dropout")
        return _flax.run(
            *self.pure(),
            xs,
            initial_carry,
            lengths=seq_lengths,
            resets=resets,
            reverse=reverse,
            chunk=chunk,
            save=save,
            path=path,
            solver=solver,
            key=None if stream is None else stream(),
            dtype=self.cell.dtype,
            time_major=self.time_major,
        )


def _stream(rngs: Any, name: str) -> nnx.RngStream:
    if isinstance(rngs, nnx.Rngs):
        if name not in rngs and "default" not in rngs:
            raise ValueError(f"rngs: got the streams {sorted(rngs)}, needs {name}, such as nnx.Rngs({name}=0)")
        return getattr(rngs, name)
    if not isinstance(rngs, nnx.RngStream):
        needs = f"nnx.Rngs, such as nnx.Rngs({name}=0), or a stream of it"
        raise TypeError(f"rngs: got {type(rngs).__name__}, needs {needs}")
    return rngs


def _param(value: Array, axes: tuple[str | None, ...] | None) -> nnx.Param:
    return nnx.Param(value if axes is None else nnx.with_partitioning(lambda: value, axes)())


def from_flax(flax_cell: nnx.RNNCellBase, *, input_size: int | None = None) -> FlaxCell:
    """Turns a Flax nnx cell into a jaxrnn cell; `unroll` gives the same values as `nnx.RNN`.

    The cell gets lengths, resets, a reverse direction, `Stack`, `Bidirectional`, and the derivative rule of `unroll`.
    The parameters are those of `params_of`. The state is the Flax cell's carry.

    Args:
        flax_cell: any `nnx.RNNCellBase` whose state is all `nnx.Param`.
        input_size: length of the last axis of the input; None: `flax_cell.in_features`.

    Returns:
        The cell. `cell.init` builds a new Flax cell from the attributes that its constructor names. It uses the default
        initializers, because Flax's cells do not keep theirs.

    Raises:
        TypeError: `flax_cell` is not an nnx cell.
        ValueError: it holds state other than parameters, or lacks attributes that its constructor needs.

    Example:
        >>> import jaxrnn
        >>> flax_cell = nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))
        >>> cell, params = from_flax(flax_cell), params_of(flax_cell)
        >>> xs = jnp.ones((5, 2, 3))                            # [T, B, I]
        >>> state, ys = jaxrnn.unroll(cell, params, xs)
        >>> bool(jnp.allclose(ys, nnx.RNN(flax_cell, time_major=True)(xs), atol=1e-6))
        True
    """
    if not isinstance(flax_cell, nnx.RNNCellBase):
        raise TypeError(f"flax_cell: got {type(flax_cell).__name__}, needs an nnx.RNNCellBase")
    graphdef, _, rest = nnx.split(flax_cell, nnx.Param, ...)  # type: ignore[misc]
    if others := sorted({type(v).__name__ for _, v in nnx.to_flat_state(rest)}):
        raise ValueError(f"flax_cell: got state of the kinds {others}, needs nnx.Param only")
    size = getattr(flax_cell, "in_features", None) if input_size is None else input_size
    if size is None:
        raise ValueError(f"input_size: got None, and {type(flax_cell).__name__} has no attribute in_features")
    recipe = _Recipe(type(flax_cell), _options(flax_cell), graphdef)
    return FlaxCell(recipe, size)


def params_of(flax_cell: nnx.RNNCellBase) -> Params:
    """Returns the parameters of a Flax nnx cell for `from_flax(flax_cell)`, the nested dict of `nnx.to_pure_dict`.

    Example:
        >>> sorted(params_of(nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))))
        ['dense_h', 'dense_i']
    """
    return nnx.to_pure_dict(nnx.state(flax_cell, nnx.Param))


class _Recipe(NamedTuple):
    kind: type[nnx.RNNCellBase]
    options: tuple[tuple[str, Any], ...]
    graphdef: nnx.GraphDef

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={getattr(value, '__name__', value)}" for name, value in self.options)
        return f"{self.kind.__name__}({options})"

    def init(self, key: Key, input_shape: tuple[int, ...]) -> Params:
        del input_shape
        module = self.kind(**dict(self.options), rngs=nnx.Rngs(key))  # type: ignore[call-arg]
        return nnx.to_pure_dict(nnx.state(module, nnx.Param))

    def carry(self, params: Params, input_shape: tuple[int, ...]) -> State:
        return nnx.merge(self.graphdef, params).initialize_carry(input_shape, nnx.Rngs(0))

    def apply(self, params: Params, carry: State, x: Array) -> tuple[State, Array]:
        return nnx.merge(self.graphdef, params)(carry, x)


def _options(flax_cell: nnx.RNNCellBase) -> tuple[tuple[str, Any], ...]:
    """Returns the constructor's arguments that differ from their defaults, read from the attributes."""
    parameters = inspect.signature(type(flax_cell).__init__).parameters
    options = {}
    for name, parameter in parameters.items():
        value = getattr(flax_cell, name, parameter.default)
        if name in ("self", "rngs") or value is parameter.default is not inspect.Parameter.empty:
            continue
        if value is inspect.Parameter.empty:
            raise ValueError(f"flax_cell: {type(flax_cell).__name__} does not keep its argument {name} as an attribute")
        options[name] = value
    return tuple(options.items())
