"""Any recurrence over a plane, anti-diagonal after anti-diagonal."""

import abc
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxrnn.checks import check_sizes
from jaxrnn.engine.chunks import default_chunk, in_chunks
from jaxrnn.engine.driver import begin_anew
from jaxrnn.engine.layer import Layer, computation_dtype
from jaxrnn.engine.masks import at, flip
from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.engine.options import Options
from jaxrnn.engine.paths import scan_alone
from jaxrnn.engine.recurrence import recurrence
from jaxrnn.jaxprs import flat_products
from jaxrnn.ops import cast, keep, select, spread_like
from jaxrnn.typing import Array, Params, PyTree, State

__all__ = ["Plane"]

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
        dtype, rows = computation_dtype(params, xs), options.steps
        if rows == 0:
            return state, jnp.zeros((0, *options.batch_shape, *self.output_size), dtype)
        valid, resets, lengths = options.valid, options.resets_before, options.lengths
        state = begin_anew(self, params, state, options, before=True)
        if valid is not None:
            xs = keep(valid, xs)
        if options.reverse:
            xs, resets = jax.tree.map(lambda a: flip(a, lengths), (xs, resets))
        planes: Any = _run_fronts(self, params, xs, state, resets, options)
        ends = jnp.full((1, *options.batch_shape), rows) if lengths is None else jnp.clip(lengths, 0, rows)[None]
        ends = spread_like(ends, planes.h[:1])
        final = jax.tree.map(lambda s, p: at(jnp.concatenate([s[None], p]), ends)[0], state, planes)
        ys = flip(planes.h, lengths) if options.reverse else planes.h
        if valid is not None:
            ys = keep(valid, ys)
        return begin_anew(self, params, final, options, before=False), cast(ys, dtype)


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


def _run_fronts(cell: Plane, params: Params, xs: Array, state: State, resets: Array | None, options: Options) -> State:
    """Returns the states of all places, leaves `[R, *batch, C, H]`, from the row `state` above the first."""
    rows, *batch_shape, columns, _ = xs.shape
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
        chunk = default_chunk(diagonals, sum(d[0].size * d.dtype.itemsize for d in jax.tree.leaves(drive)))
    _, fronts = in_chunks(segment, (params, outside), outside, news, chunk, save=options.save)
    planes = jax.tree.map(functools.partial(_straight, length), fronts)
    return planes if by_rows else jax.tree.map(_turned, planes)


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
