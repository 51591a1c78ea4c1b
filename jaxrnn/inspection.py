"""What happens inside: states at every step, norms of their gradients, sizes, the paths that run, Newton's rounds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.cell import Cell
from jaxrnn.checks import check_input, check_tuple
from jaxrnn.engine.driver import run_and_tell, unroll
from jaxrnn.engine.layer import Layer, check_layer, state_dtype
from jaxrnn.engine.newton import Convergence, Newton
from jaxrnn.engine.noise import nothing
from jaxrnn.engine.options import Options
from jaxrnn.engine.paths import Choice, recorded_choices
from jaxrnn.engine.runs import take_step
from jaxrnn.jaxprs import count_loop_products
from jaxrnn.networks.inspected import Inspected
from jaxrnn.networks.stepped import as_cell
from jaxrnn.networks.wrapper import Wrapper
from jaxrnn.ops import follow, select
from jaxrnn.typing import Array, DTypeLike, Params, PyTree, State

__all__ = [
    "Choice",
    "Convergence",
    "explain",
    "newton_rounds",
    "state_gradient_norms",
    "state_history",
    "summary",
]


def state_history(cell: Layer, params: Params, xs: PyTree, state: State | None = None, **options: Any) -> State:
    """Returns the first state and the states after every step: leaves `[T + 1, *batch, ...]`; held beyond `lengths`.

    Entry t lies between the steps t - 1 and t. A forward run goes from the first entry to the last. A reverse run, such
    as the backward cell of a `Bidirectional`, goes from the last entry to the first.

    Args:
        cell: any cell, or any network whose cells have single time steps.
        params: from `cell.init`.
        xs: as for `unroll`.
        state: the state before the first step; None: the initial state.
        **options: as for `unroll`.

    Example:
        >>> import jaxrnn
        >>> net = jaxrnn.Stack((jaxrnn.LSTM(3, 4), jaxrnn.GRU(4, 2)))
        >>> lstm, gru = state_history(net, net.init(jax.random.key(0)), jnp.ones((5, 2, 3)))
        >>> lstm.c.shape, gru.h.shape, bool((gru.h[0] == 0).all())
        ((6, 2, 4), (6, 2, 2), True)
    """
    check_layer(cell)
    return unroll(cell.with_cells(_Remembering), params, xs, state, **options)[0]


@dataclass(frozen=True)
class _Remembering(Wrapper):
    """A layer whose run returns all states instead of the last one."""

    def run(self, params: Params, xs: PyTree, state: State, options: Options) -> tuple[State, PyTree]:
        """Runs the layer and returns the first state and the states after every step."""
        final, seen = Inspected(as_cell(self.cell)).run(params, xs, state, options)
        states = seen.state
        if (valid := options.valid) is not None:
            # A reverse run begins in the padding.
            rest = state if options.reverse else final
            states = jax.tree.map(lambda s, r: select(valid, s, jnp.broadcast_to(r[None], s.shape)), states, rest)

        def joined(before: Array, states: Array) -> Array:
            parts = [jnp.asarray(before)[None].astype(states.dtype), states]
            return jnp.concatenate(parts[::-1] if options.reverse else parts)

        return jax.tree.map(joined, state, states), seen.y

    def __repr__(self) -> str:
        """Prints the wrapped layer, for error messages."""
        return repr(self.cell)


@dataclass(frozen=True)
class _Perturbed(Cell, Wrapper):
    """A cell that adds a part of its input to the real leaves of its new state: `s' = step(s) + ε`."""

    cell: Cell

    @property
    def input_spec(self) -> PyTree:
        """The cell's input, and ε for one example."""
        return self.cell.input_spec, _reals(jax.eval_shape(self.cell.initial_state))

    def project(self, params: Params, x: tuple[PyTree, list[Array]]) -> tuple[PyTree, list[Array]]:
        """The cell's drive, and ε."""
        return self.cell.project(params, x[0]), x[1]

    def step(self, params: Params, state: State, drive: tuple[PyTree, list[Array]]) -> tuple[State, PyTree]:
        """Takes the cell's step and adds ε; an output that is a part of the state follows it."""
        new, output = take_step(self.cell, params, state, drive[0], nothing)
        moves = iter(drive[1])
        moved = jax.tree.map(lambda s: s + next(moves) if jnp.issubdtype(s.dtype, jnp.inexact) else s, new)
        return moved, follow(new, moved, output)

    def readout(self, params: Params, output: PyTree, drive: tuple[PyTree, list[Array]]) -> PyTree:
        """Returns the cell's `y`."""
        return self.cell.readout(params, output, drive[0])


def _reals(tree: PyTree) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def state_gradient_norms(
    cell: Layer,
    params: Params,
    xs: PyTree,
    loss: Callable[[PyTree], Array],
    state: State | None = None,
    *,
    lengths: Array | None = None,
    resets: Array | None = None,
    reverse: bool = False,
) -> Array:
    """Returns `‖∂loss/∂s_t‖₂` at every step, `[T, *batch]`, which shows whether gradients vanish or explode.

    The derivative goes through everything after `s_t`: later steps, and the output at t if it is a part of the state,
    as in most cells.

    Args:
        cell: any cell or network with single time steps; the norm is over the whole state.
        params: from `cell.init`.
        xs: as for `unroll`.
        loss: `ys -> scalar`.
        state: as for `unroll`. There is no `key`: cells with randomness run as the deterministic network.
        lengths: `[*batch]` integers.
        resets: `[T, *batch]` booleans.
        reverse: run from the last step to the first.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.Elman(3, 4)
        >>> params, xs = cell.init(jax.random.key(0)), jnp.ones((5, 2, 3))
        >>> norms = state_gradient_norms(cell, params, xs, lambda ys: jnp.sum(ys[-1]))
        >>> norms.shape, norms[-1].tolist()                  # 4 ones: the norm 2
        ((5, 2), [2.0, 2.0])

    Reference: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks".
    """
    check_layer(cell)
    leading = check_input(cell, xs, "xs", time=True)
    spec = _reals(jax.eval_shape(lambda: cell.initial_state(leading, state_dtype(params, xs))))

    def moved(moves: list[Array]) -> Array:
        moving = _Perturbed(as_cell(cell))
        _, ys = unroll(moving, params, (xs, moves), state, lengths=lengths, resets=resets, reverse=reverse)
        return loss(ys)

    grads = jax.grad(moved)([jnp.zeros(s.shape, s.dtype) for s in spec])
    squares = [jnp.sum(jnp.abs(g).reshape(*leading, -1) ** 2, axis=-1) for g in grads]
    return jnp.sqrt(sum(squares[1:], squares[0]))


def summary(cell: Layer) -> str:
    """Describes a network, a line for each cell in it: parameters, values of the state of a row, products a time step.

    Products are the matrix multiplications and convolutions that remain in the loop over time. The last line counts the
    whole network, with what its wrappers add.

    Args:
        cell: any cell or network.

    Example:
        >>> import jaxrnn
        >>> print(summary(jaxrnn.Stack((jaxrnn.LSTM(3, 8), jaxrnn.GRU(8, 4)))))
        cell                               params  state  products
        LSTM(input_size=3, hidden_size=8)     384     16         1
        GRU(input_size=8, hidden_size=4)      160      4         1
        Stack of 2 cells                      544     20         2
    """
    check_layer(cell)
    parts: list[Layer] = []

    def look(part: Layer) -> Layer:
        parts.append(part)
        return part

    cell.with_cells(look)
    counts = [_counts(part) for part in parts]
    whole = (*_counts(cell)[:2], sum(n for *_, n in counts))
    name = f"{type(cell).__name__} of {len(parts)} cell{'s' * (len(parts) > 1)}"
    rows: list[tuple[str, ...]] = [("cell", "params", "state", "products")]
    rows += [(repr(part), *map(str, count)) for part, count in zip(parts, counts, strict=True)]
    if parts != [cell]:
        rows.append((name, *map(str, whole)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join(lines)


def explain(
    cell: Layer, *, steps: int | None, batch: int | tuple[int, ...] = 1, dtype: DTypeLike = jnp.float32, **options: Any
) -> tuple[Choice, ...]:
    """Tells on which path each cell of a network runs in `unroll`, or in a call, on this machine; why not natively.

    Args:
        cell: any cell or network.
        steps: T, the number of time steps of an `unroll`; None: a call, `cell(params, state, x)`.
        batch: the number of rows, or `[*batch]`.
        dtype: of parameters and inputs.
        options: further arguments of `unroll`, such as `lengths`, `save` or `path`, or of the call; they are asked for,
            not run.

    Returns:
        One `Choice` for each run of a cell, in their order: `(cell, path, reason)` with the path "native", "scan" or,
        with a `solver`, "newton", and the reason why it is not native, empty if it is.

    Raises:
        TypeError, ValueError: as `unroll`, or the call.

    Example:
        >>> import jaxrnn
        >>> for choice in explain(jaxrnn.Stack((jaxrnn.LSTM(3, 8), jaxrnn.MinGRU(8, 4))), steps=2, path="scan"):
        ...     print(choice)
        LSTM(input_size=3, hidden_size=8): scan (asked for)
        MinGRU(input_size=8, hidden_size=4): scan (asked for)
        >>> print(*explain(jaxrnn.LSTM(3, 4, heads=4), steps=100, solver=jaxrnn.Newton()))
        LSTM(input_size=3, hidden_size=4, heads=4): newton (asked for; Jacobians of 4 blocks of 2 x 2)
        >>> print(*explain(jaxrnn.GRU(3, 4), steps=None, batch=32, path="scan"))
        GRU(input_size=3, hidden_size=4): scan (asked for)
    """
    check_layer(cell)
    if isinstance(batch, int | np.integer):
        batch = (int(batch),)
    check_tuple(batch=batch)
    batch_shape = tuple(batch)

    leading = batch_shape if steps is None else (steps, *batch_shape)

    def run(key: Array) -> PyTree:
        def zeros(spec: jax.ShapeDtypeStruct) -> Array:
            kind = dtype if jnp.issubdtype(spec.dtype, jnp.floating) else spec.dtype
            return jnp.zeros((*leading, *spec.shape), kind)

        params, inputs = cell.init(key, dtype=dtype), jax.tree.map(zeros, cell.input_spec)
        if steps is None:
            return cell(params, cell.initial_state(batch_shape, state_dtype(params, inputs)), inputs, **options)
        return unroll(cell, params, inputs, **options)

    with recorded_choices() as choices:
        jax.eval_shape(run, jax.random.key(0))
    return tuple(choices)


def newton_rounds(
    cell: Layer,
    params: Params,
    xs: PyTree,
    state: State | None = None,
    *,
    solver: Newton = Newton(),
    **options: Any,
) -> PyTree:
    """Tells how `unroll(..., solver=solver)` converges: in how many rounds, and up to which residual at every step.

    Args:
        cell: any cell or network.
        params: from `cell.init`.
        xs: as for `unroll`.
        state: as for `unroll`.
        solver: the `jaxrnn.Newton` to look at.
        **options: as for `unroll`.

    Returns:
        In the place of each cell's state, a `Convergence` of `rounds` `[T]`, equal within a chunk, and `residual`
        `[T]`. A chunk with a residual above `solver.tolerance` is run step after step. None for what no solver runs,
        layers without steps and cells that run many steps at once, and for a `Masked` cell, whose time steps are
        others.

    Raises:
        TypeError, ValueError: as `unroll`.

    Example:
        >>> import jaxrnn
        >>> net = jaxrnn.Stack((jaxrnn.IndRNN(3, 8), jaxrnn.SRU(8, 8)))
        >>> params, xs = net.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (20, 3))
        >>> indrnn, sru = newton_rounds(net, params, xs)
        >>> indrnn.rounds.shape, int(sru.rounds[-1]), bool(sru.residual.max() < 1e-5)
        ((20,), 1, True)
    """
    check_layer(cell)
    return unroll(cell.with_cells(_Solved), params, xs, state, solver=solver, **options)[0]


@dataclass(frozen=True)
class _Solved(Wrapper):
    """A layer whose run returns how its solver converged instead of the last state."""

    def run(self, params: Params, xs: PyTree, state: State, options: Options) -> tuple[Convergence | None, PyTree]:
        """Runs the layer."""
        if isinstance(self.cell, Cell):
            _, ys, how = run_and_tell(self.cell, params, xs, state, options)
            return how, ys
        return None, self.cell.run(params, xs, state, options)[1]

    def __repr__(self) -> str:
        """Prints the wrapped layer, for error messages."""
        return repr(self.cell)


def _counts(layer: Layer) -> tuple[int, int, int]:
    """Returns the numbers of parameters, of values in a row's state, and of products in the loop over time."""
    params, state = jax.eval_shape(layer.init, jax.random.key(0)), jax.eval_shape(layer.initial_state)
    xs = jax.tree.map(lambda s: jax.ShapeDtypeStruct((2, *s.shape), s.dtype), layer.input_spec)
    options = Options(2, (), path="scan")
    program = jax.make_jaxpr(lambda p, x, s: layer.run(p, x, s, options))(params, xs, state)
    sizes = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params, state))
    return *sizes, count_loop_products(program)
