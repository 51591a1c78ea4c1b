"""Recurrence over a plane (Graves, Fernández & Schmidhuber 2007)."""

import abc
import functools
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxrnn import initializers
from jaxrnn.checks import check_activations, check_bools, check_initializers, check_sizes
from jaxrnn.engine.chunks import default_chunk, in_chunks
from jaxrnn.engine.driver import begin_anew
from jaxrnn.engine.layer import Layer, computation_dtype
from jaxrnn.engine.masks import at, flip
from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.engine.options import Options
from jaxrnn.engine.paths import scan_alone
from jaxrnn.engine.recurrence import recurrence
from jaxrnn.jaxprs import flat_products
from jaxrnn.ops import add, affine, cast, gates, keep, recurrent, select, spread_like, weigh
from jaxrnn.typing import Activation, Array, DTypeLike, Initializer, Key, Params, PyTree, State

__all__ = ["MDLSTM", "MDRNN", "MDLSTMParams", "MDLSTMState", "MDRNNParams", "MDRNNState"]


P = TypeVar("P")
S = TypeVar("S")


@dataclass(frozen=True)
class Plane(Layer[P, S]):
    """Base class for recurrence over a plane: every place sees the state above it and the state to its left.

        s[r, c] = f(x[r, c], s[r - 1, c], s[r, c - 1])

    A subclass defines `init`, `initial_state`, `project` and `place`. For `unroll` the rows are time steps. A whole
    sequence of R rows of C places is not run row by row, though: the places of an anti-diagonal, r + c = d, see only
    the anti-diagonal before. One loop over R + C - 1 anti-diagonals runs in each of its steps all rows at once, or all
    columns, whichever are fewer:

        front[d][r] = f(x[r, d - r], front[d - 1][r - 1], front[d - 1][r])
        front[d][c] = f(x[d - c, c], front[d - 1][c], front[d - 1][c - 1])

    Raises:
        ValueError: a size is not a positive integer, or `input_size` is not a pair.
    """

    input_size: tuple[int, int]
    hidden_size: int

    def __post_init__(self) -> None:
        size = self.input_size
        if not isinstance(size, tuple | list) or len(size) != 2:
            raise ValueError(f"input_size: got {size!r}, needs (columns, values at a place)")
        object.__setattr__(self, "input_size", tuple(size))
        check_sizes(columns=size[0], input_size=size[1], hidden_size=self.hidden_size)

    @property
    def output_size(self) -> tuple[int, int]:
        """`(C, H)`."""
        return self.input_size[0], self.hidden_size

    @abc.abstractmethod
    def project(self, params: P, x: Array) -> tuple[Array, ...]:
        """Returns what the places need of the input, for any leading axes."""

    @abc.abstractmethod
    def place(self, params: P, above: S, left: S, drive: tuple[Array, ...]) -> S:
        """Returns the state of one or several places from the states above and to the left."""

    def advance(self, params: P, state: S, x: Array, draw: Draw = nothing) -> tuple[S, Array]:
        """Runs one row, place after place, from the row above."""
        state, y = _row(self, params, state, self.project(params, x))
        return state, cast(y, computation_dtype(params, x))

    def run(self, params: P, xs: Array, state: S, options: Options) -> tuple[S, Array]:
        """Runs over the plane, anti-diagonal after anti-diagonal."""
        scan_alone(self, options, "its time step is a recurrence over places")
        return _run_plane(self, params, xs, state, options)


class MDRNNParams(NamedTuple):
    """Parameters of `MDRNN`."""

    w_x: Array  # [I, H]
    w_h: Array  # [2H, H], rows for the state above, then for the state to the left
    b: Array  # [H]


class MDRNNState(NamedTuple):
    """State of `MDRNN` for one row."""

    h: Array  # [*batch, C, H]


@dataclass(frozen=True)
class MDRNN(Plane[MDRNNParams, MDRNNState]):
    """Two-dimensional recurrent network; a time step of `unroll` is a row, `xs` `[R, *batch, C, I]`.

        h = φ(x W_x + h_above W_a + h_left W_l + b)             states outside of the plane are zero; y = h

    The projected plane is in memory as a whole: `chunk` and `save` of `unroll` bound only the memory used after it.

    Args:
        input_size: `(C, I)`, places in a row and values at a place.
        hidden_size: H, units.
        activation: φ, by default tanh.

    Raises:
        TypeError: `activation` is not a function.
        ValueError: a size is not a positive integer, or `input_size` is not a pair.

    Example:
        >>> import jaxrnn
        >>> cell = MDRNN(input_size=(6, 3), hidden_size=4)
        >>> params = cell.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(cell, params, jnp.ones((5, 2, 6, 3)))         # 5 rows of 6 places
        >>> ys.shape, state.h.shape
        ((5, 2, 6, 4), (2, 6, 4))

    Reference: Graves, Fernández & Schmidhuber 2007, "Multi-dimensional recurrent neural networks", section 2.
    """

    activation: Activation = jnp.tanh

    def __post_init__(self) -> None:
        super().__post_init__()
        check_activations(activation=self.activation)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(0.5**0.5),
        bias_init: Initializer = initializers.zeros,
    ) -> MDRNNParams:
        """Returns fresh parameters.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of `w_x`; by default `lecun_normal`.
            recurrent_init: of the `[H, H]` of each direction, by default scaled, because two products add up.
            bias_init: of `b` `[H]`; by default zeros.
        """
        check_initializers(input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init)
        (_, i), h = self.input_size, self.hidden_size
        kx, kb, *kh = jax.random.split(key, 4)
        return MDRNNParams(
            w_x=input_init(kx, (i, h), dtype),
            w_h=jnp.concatenate([recurrent_init(k, (h, h), dtype) for k in kh]),
            b=bias_init(kb, (h,), dtype),
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> MDRNNState:
        """Returns zeros `[*batch_shape, C, H]`, the row above the first."""
        return MDRNNState(h=jnp.zeros((*batch_shape, *self.output_size), dtype))

    def project(self, params: MDRNNParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b` as a tuple of one."""
        return (affine(x, params.w_x, params.b),)

    def place(self, params: MDRNNParams, above: MDRNNState, left: MDRNNState, drive: tuple[Array, ...]) -> MDRNNState:
        (z,) = add(drive, recurrent(jnp.concatenate([above.h, left.h], axis=-1), params.w_h, 1))
        return MDRNNState(self.activation(z))


class MDLSTMParams(NamedTuple):
    """Parameters of `MDLSTM`."""

    w_x: Array  # [I, 5H], blocks i, f_above, f_left, g, o
    w_h: Array  # [2H, 5H], rows for the state above, then for the state to the left
    b: Array  # [5H]
    w_c: Array | None = None  # [4H], diagonal peepholes, blocks i, f_above, f_left, o


class MDLSTMState(NamedTuple):
    """State of `MDLSTM` for one row."""

    h: Array  # [*batch, C, H]
    c: Array  # [*batch, C, H]


@dataclass(frozen=True)
class MDLSTM(Plane[MDLSTMParams, MDLSTMState]):
    """Two-dimensional long short-term memory; a time step of `unroll` is a row, `xs` `[R, *batch, C, I]`.

        i, f_a, f_l, g, o = x W_x + h_above W_a + h_left W_l + b
        i += (c_above + c_left) ⊙ w_i                                       with peephole
        f_a, f_l += c_above ⊙ w_a, c_left ⊙ w_l                             with peephole
        c = σ(i) ⊙ tanh(g) + σ(f_a) ⊙ c_above + σ(f_l) ⊙ c_left; or, if stable,
        c = σ(i) ⊙ tanh(g) + (1 - σ(i)) ⊙ (σ(f_a) ⊙ c_above + σ(f_l) ⊙ c_left) / (σ(f_a) + σ(f_l))
        o += c ⊙ w_o                                                        with peephole
        h = σ(o) ⊙ tanh(c)                      states outside of the plane are zero; y = h

    On a single row or column it is `LSTM`. `Bidirectional(Mirrored(cell))` runs in all four directions. A memory may
    grow with the number of paths through the plane, which is exponential; a stable memory is a mean. The projected
    plane is in memory as a whole: `chunk` and `save` of `unroll` bound only the memory used after it.

    Args:
        input_size: `(C, I)`, places in a row and values at a place.
        hidden_size: H, memory cells.
        peephole: whether the gates see the memories through diagonal weights.
        stable: whether the memory is a convex combination of the candidate and the two memories before.

    Raises:
        TypeError: a flag is not a bool.
        ValueError: a size is not a positive integer, or `input_size` is not a pair.

    Example:
        >>> import jaxrnn
        >>> cell = MDLSTM(input_size=(6, 3), hidden_size=4)
        >>> net = jaxrnn.Bidirectional(jaxrnn.Mirrored(cell))
        >>> params = net.init(jax.random.key(0))
        >>> state, ys = jaxrnn.unroll(net, params, jnp.ones((5, 2, 6, 3)))          # 5 rows of 6 places
        >>> ys.shape
        (5, 2, 6, 16)

    Reference: Graves, Fernández & Schmidhuber 2007, "Multi-dimensional recurrent neural networks", section 3; stable:
    Leifert, Strauß, Grüning, Wustlich & Labahn 2016, "Cells in multidimensional recurrent neural networks".
    """

    peephole: bool = False
    stable: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bools(peephole=self.peephole, stable=self.stable)

    def init(
        self,
        key: Key,
        *,
        dtype: DTypeLike = jnp.float32,
        input_init: Initializer = initializers.lecun_normal(),
        recurrent_init: Initializer = initializers.orthogonal(),
        bias_init: Initializer = initializers.zeros,
        forget_bias: float = 1.0,
        peephole_init: Initializer = initializers.zeros,
    ) -> MDLSTMParams:
        """Returns fresh parameters, initialized gate by gate.

        Args:
            key: a typed key.
            dtype: of every parameter.
            input_init: of each `[I, H]` block of `w_x`; by default `lecun_normal`.
            recurrent_init: of each `[H, H]` block of `w_h`, for each direction; by default `orthogonal`.
            bias_init: of `b`; sees `[5, H]`, one row per gate; by default zeros.
            forget_bias: added to the biases of f_above and f_left.
            peephole_init: of `w_c`; sees `[4, H]`, one row per gate; by default zeros.
        """
        check_initializers(
            input_init=input_init, recurrent_init=recurrent_init, bias_init=bias_init, peephole_init=peephole_init
        )
        (_, i), h = self.input_size, self.hidden_size
        kx, kb, kc, *kh = jax.random.split(key, 5)
        return MDLSTMParams(
            w_x=initializers.blocks(input_init, kx, (i, h), 5, dtype),
            w_h=jnp.concatenate([initializers.blocks(recurrent_init, k, (h, h), 5, dtype) for k in kh]),
            b=bias_init(kb, (5, h), dtype).at[1:3].add(forget_bias).reshape(5 * h),
            w_c=peephole_init(kc, (4, h), dtype).reshape(4 * h) if self.peephole else None,
        )

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> MDLSTMState:
        """Returns zeros, `h` and `c` `[*batch_shape, C, H]`, the row above the first."""
        shape = (*batch_shape, *self.output_size)
        return MDLSTMState(h=jnp.zeros(shape, dtype), c=jnp.zeros(shape, dtype))

    def project(self, params: MDLSTMParams, x: Array) -> tuple[Array, ...]:
        """Returns `x W_x + b` as the tuple i, f_above, f_left, g, o."""
        return gates(affine(x, params.w_x, params.b), 5)

    def place(
        self, params: MDLSTMParams, above: MDLSTMState, left: MDLSTMState, drive: tuple[Array, ...]
    ) -> MDLSTMState:
        i, f_a, f_l, g, o = add(drive, recurrent(jnp.concatenate([above.h, left.h], axis=-1), params.w_h, 5))
        if params.w_c is not None:
            w_i, w_a, w_l, w_o = gates(params.w_c, 4)
            i, f_a, f_l = i + weigh(above.c + left.c, w_i), f_a + weigh(above.c, w_a), f_l + weigh(left.c, w_l)
        c = jax.nn.sigmoid(i) * jnp.tanh(g)
        if self.stable:
            # σ(f_a) / (σ(f_a) + σ(f_l)), finite where both round to zero.
            share = jax.nn.sigmoid(jax.nn.log_sigmoid(f_a) - jax.nn.log_sigmoid(f_l))
            c = c + (1 - jax.nn.sigmoid(i)) * (share * above.c + (1 - share) * left.c)
        else:
            c = c + jax.nn.sigmoid(f_a) * above.c + jax.nn.sigmoid(f_l) * left.c
        if params.w_c is not None:
            o = o + weigh(c, w_o)
        return MDLSTMState(jax.nn.sigmoid(o) * jnp.tanh(c), c)


class _Front(NamedTuple):
    """Data of one anti-diagonal for the N rows or columns of the front."""

    drive: PyTree  # [*batch, N, ...]
    inside: Array  # [*batch, N], whether the row or column has a place on it
    edge: State  # [*batch, 1, H], the state above the first row, or to the left of the first column
    fresh: tuple[Array, State] | None  # [*batch, N], whether a place begins a new plane, and the state above it then


def _place(cell: Plane, params: Params, above: State, left: State, drive: PyTree) -> State:
    new = cell.place(params, above, left, drive)
    return jax.tree.map(lambda n, s: cast(n, s.dtype), new, left)


def _row(cell: Plane, params: Params, state: State, drive: PyTree) -> tuple[State, Array]:
    def body(left: State, at: tuple[State, PyTree]) -> tuple[State, State]:
        left = _place(cell, params, at[0], left, at[1])
        return left, left

    columns = jax.tree.map(lambda a: jnp.moveaxis(a, -2, 0), (state, drive))
    _, row = lax.scan(body, jax.tree.map(lambda s: jnp.zeros_like(s[0]), columns[0]), columns)
    row = jax.tree.map(lambda a: jnp.moveaxis(a, 0, -2), row)
    return row, row.h


def _advance(cell: Plane, by_rows: bool, given: tuple[Params, State], front: State, new: _Front) -> tuple[State, State]:
    params, outside = given
    shifted = jax.tree.map(lambda e, s: jnp.concatenate([e, s[..., :-1, :]], axis=-2), new.edge, front)
    above, left = (shifted, front) if by_rows else (front, shifted)
    if new.fresh is not None:
        flags, start = new.fresh
        above = jax.tree.map(lambda a, s: select(flags, a, s), start, above)
    places = _place(cell, params, above, left, new.drive)
    front = jax.tree.map(lambda p, o: select(new.inside, p, o), places, outside)
    return front, front


def _run_plane(cell: Plane, params: Params, xs: Array, state: State, options: Options) -> tuple[State, Array]:
    rows, *batch_shape, columns, _ = xs.shape
    dtype = computation_dtype(params, xs)
    if rows == 0:
        return state, jnp.zeros((0, *batch_shape, *cell.output_size), dtype)
    valid, resets, lengths = options.valid, options.resets_before, options.lengths
    state = begin_anew(cell, params, state, options, before=True)
    if valid is not None:
        xs = keep(valid, xs)
    if options.reverse:
        xs, resets = jax.tree.map(lambda a: flip(a, lengths), (xs, resets))

    by_rows, width, length = rows <= columns, min(rows, columns), max(rows, columns)
    diagonals = width + length - 1
    skew = _skew if by_rows else lambda plane: _skew(_turned(plane))
    place = jnp.arange(diagonals)[:, None] - jnp.arange(width)[None]
    inside = ((place >= 0) & (place < length)).reshape(diagonals, *[1] * len(batch_shape), width)
    first, fresh = state, None
    if resets is not None:
        start = cell.restart(params, state, options.batch_shape)
        flags = jnp.broadcast_to(resets[..., None, None], (*resets.shape, columns, 1))
        fresh = skew(flags)[..., 0], jax.tree.map(lambda s: skew(jnp.broadcast_to(s[None], (rows, *s.shape))), start)
        first = jax.tree.map(lambda a, s: select(resets[0], a, s), start, state)
    # The state above the first row is the edge of a front of rows; a column holds it until its first place.
    top = _padded(first, rows - 1)
    zeros = jax.tree.map(lambda s: jnp.broadcast_to(s[..., :1, :], (*batch_shape, width, s.shape[-1])), state)
    zeros = jax.tree.map(jnp.zeros_like, zeros)
    edge, outside = (top, zeros) if by_rows else (jax.tree.map(jnp.zeros_like, top), first)
    drive = jax.tree.map(skew, flat_products(cell.project)(params, xs))
    news = _Front(
        drive=drive,
        inside=spread_like(jnp.broadcast_to(inside, (diagonals, *batch_shape, width)), jax.tree.leaves(drive)[0]),
        edge=jax.tree.map(lambda s: jnp.moveaxis(s, -2, 0)[..., None, :], edge),
        fresh=fresh,
    )

    def segment(given: tuple[Params, State], front: State, news: _Front) -> tuple[State, State]:
        return recurrence(functools.partial(_advance, cell, by_rows), False, given, front, news)

    chunk = options.chunk
    if chunk is None:
        chunk = default_chunk(diagonals, sum(d[0].size * d.dtype.itemsize for d in jax.tree.leaves(news.drive)))
    _, fronts = in_chunks(segment, (params, outside), outside, news, chunk, save=options.save)

    planes = jax.tree.map(functools.partial(_straight, length), fronts)
    if not by_rows:
        planes = jax.tree.map(_turned, planes)
    every = jax.tree.map(lambda s, p: jnp.concatenate([s[None], p]), state, planes)
    ends = jnp.clip(lengths, 0, rows)[None] if lengths is not None else jnp.full((1, *batch_shape), rows)
    ends = spread_like(ends, planes.h[:1])
    final = jax.tree.map(lambda e: at(e, ends)[0], every)
    ys = planes.h
    if options.reverse:
        ys = flip(ys, lengths)
    if valid is not None:
        ys = keep(valid, ys)
    return begin_anew(cell, params, final, options, before=False), cast(ys, dtype)


def _turned(plane: Array) -> Array:
    """Swaps rows and columns: `[R, *batch, C, H] -> [C, *batch, R, H]`."""
    return jnp.swapaxes(plane, 0, -2)


def _padded(tree: PyTree, n: int) -> PyTree:
    """Appends `n` columns of zeros: `[*batch, C, H] -> [*batch, C + n, H]`."""
    return jax.tree.map(lambda a: jnp.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, n), (0, 0)]), tree)


def _skew(plane: Array) -> Array:
    """Turns rows into anti-diagonals, zero outside: `[R, *batch, C, H] -> [D, *batch, R, H]`, D = R + C - 1.

    Every row is padded to D + 1, and the flat values are read again as rows of length D: row r is shifted right by r.
    """
    rows, columns = plane.shape[0], plane.shape[-2]
    plane = jnp.moveaxis(_padded(plane, rows), -2, 1)
    diagonals = rows + columns - 1
    flat = plane.reshape(rows * (diagonals + 1), *plane.shape[2:])[: rows * diagonals]
    return jnp.moveaxis(flat.reshape(rows, diagonals, *plane.shape[2:]), 0, -2)


def _straight(columns: int, fronts: Array) -> Array:
    """Turns anti-diagonals into rows, the inverse of `_skew`: `[R + C - 1, *batch, R, H] -> [R, *batch, C, H]`."""
    diagonals, rows = fronts.shape[0], fronts.shape[-2]
    plane = jnp.moveaxis(fronts, -2, 0)
    flat = plane.reshape(rows * diagonals, *plane.shape[2:])
    flat = jnp.pad(flat, [(0, rows)] + [(0, 0)] * (flat.ndim - 1))
    return jnp.moveaxis(flat.reshape(rows, diagonals + 1, *plane.shape[2:])[:, :columns], 1, -2)
