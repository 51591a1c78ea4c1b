"""Any recurrence over a plane, row after row or anti-diagonal after anti-diagonal."""

import abc
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrnn.cell import Cell
from jaxrnn.checks import check_sizes
from jaxrnn.engine.chunks import default_chunk, in_chunks
from jaxrnn.engine.driver import unroll
from jaxrnn.engine.layer import Layer, call_path, computation_dtype
from jaxrnn.engine.masks import at, flip
from jaxrnn.engine.meshes import Placement, place
from jaxrnn.engine.noise import Draw, nothing
from jaxrnn.engine.options import Options
from jaxrnn.engine.paths import record_scan
from jaxrnn.engine.recurrence import recurrence
from jaxrnn.engine.runs import begin_anew
from jaxrnn.jaxprs import flat_products
from jaxrnn.ops import cast, keep, select, spread_like
from jaxrnn.typing import Array, DTypeLike, Key, P, Params, PyTree, S, State

__all__ = ["Plane"]


@dataclass(frozen=True)
class Plane(Layer[P, S]):
    """Base class for recurrence over a plane: every place sees the state above it and the state to its left.

        s[r, c] = f(x[r, c], s[r - 1, c], s[r, c - 1])

    A subclass defines `init`, `initial_state`, `project` and `place`. For `unroll` the rows are time steps. On a CPU, R
    rows of C places run row after row, each as a sequence of C places whose input is the row above (`_run_rows`). Other
    devices wait for R C small steps: there, places of an anti-diagonal, r + c = d, see only the anti-diagonal before,
    and one loop over R + C - 1 anti-diagonals runs in each of its steps all rows at once, or all columns, whichever are
    fewer (`_run_fronts`):

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
        del draw
        above, x = jax.tree.map(lambda a: jnp.moveaxis(a, -2, 0), (state, x))
        places = _row(self, params, above, x, path="auto" if call_path() == "auto" else "scan")
        row: Any = jax.tree.map(lambda a: jnp.moveaxis(a, 0, -2), places)
        return row, cast(row.h, computation_dtype(params, x))

    def run(self, params: P, xs: Array, state: S, options: Options) -> tuple[S, Array]:
        """Runs over the plane."""
        dtype = computation_dtype(params, xs)
        if options.steps == 0:
            return state, jnp.zeros((0, *options.batch_shape, *self.output_size), dtype)
        state = begin_anew(self, params, state, options, before=True)
        if (valid := options.valid) is not None:
            xs = keep(valid, xs)
        run = _run_rows if _row_by_row(options) else _run_fronts
        final, h = run(self, params, xs, state, options)
        ys = h if valid is None else keep(valid, h)
        return begin_anew(self, params, final, options, before=False), cast(ys, dtype)


def _row_by_row(options: Options) -> bool:
    return jax.default_backend() == "cpu" or options.path == "native" or options.solver is not None


def _place(cell: Plane, params: Params, above: State, left: State, drive: PyTree) -> State:
    new = cell.place(params, above, left, drive)
    return jax.tree.map(lambda n, s: cast(n, s.dtype), new, left)


@dataclass(frozen=True)
class _Places(Cell[P, S]):
    """The places of a row as time steps; an input is the state above and the values at the place."""

    plane: Plane[P, S]

    def __repr__(self) -> str:
        return repr(self.plane)

    @property
    def input_size(self) -> int:
        """Number of values at a place."""
        return self.plane.input_size[1]

    @property
    def hidden_size(self) -> int:
        """Number of units at a place."""
        return self.plane.hidden_size

    @property
    def input_spec(self) -> PyTree:
        """The state above, and the values at a place."""
        return jax.eval_shape(self.initial_state), jax.ShapeDtypeStruct((self.input_size,), jnp.float32)

    def init(self, key: Key, *, dtype: DTypeLike = jnp.float32) -> P:
        """Returns the parameters of the plane."""
        return self.plane.init(key, dtype=dtype)

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> S:
        """Returns the state to the left of the first place."""
        return jax.tree.map(lambda s: s[..., 0, :], self.plane.initial_state(batch_shape, dtype))

    def project(self, params: P, x: tuple[S, Array]) -> tuple[S, tuple[Array, ...]]:
        """Returns the state above, whose products are found in the step, and what the place needs of its values."""
        above, values = x
        return above, self.plane.project(params, values)

    def step(self, params: P, state: S, drive: tuple[S, tuple[Array, ...]]) -> tuple[S, S]:
        """Takes one place."""
        above, at_place = drive
        new = _place(self.plane, params, above, state, at_place)
        return new, new


def _row(cell: Plane, params: Params, above: State, x: Array, **options: Any) -> State:
    """Returns the states of a row from those of the row above, leaves `[C, *batch, H]`; `options` are of `unroll`."""
    left = jax.tree.map(lambda s: jnp.zeros_like(s[0]), above)
    row = unroll(_Places(cell), params, (above, x), left, **options)[1]
    return jax.tree.map(lambda n, s: cast(n, s.dtype), row, above)


def _run_rows(cell: Plane, params: Params, xs: Array, state: State, options: Options) -> tuple[State, Array]:
    """Runs row after row, on every device those of its batch: `(state, h [R, *batch, C, H])`."""
    data = xs, options.valid, options.resets_before
    where = place(params, state, data, options.batch_shape)
    where = Placement() if where.obstacle else where
    rows = _chunks_of_rows if options.save == "boundaries" else _rows
    return where.map(functools.partial(rows, cell, options), params, state, data)


def _chunks_of_rows(cell: Plane, options: Options, params: Params, state: State, data: Any) -> tuple[State, Array]:
    """Runs row after row, of which reverse mode keeps those before each chunk."""
    segment = functools.partial(_rows, cell, options._replace(save="auto"))
    one_row = sum(s.size * s.dtype.itemsize for s in jax.tree.leaves(state))
    chunk = options.chunk or default_chunk(len(data[0]), one_row)
    return in_chunks(segment, params, state, data, chunk, reverse=options.reverse, save="boundaries")


def _rows(cell: Plane, options: Options, params: Params, state: State, data: Any) -> tuple[State, Array]:
    xs, valid, resets = data
    # Residuals of a row are copied among those of all rows, which takes longer than to compute them again.
    save = "states" if options.save == "auto" else options.save
    across = {"save": save, "path": options.path, "solver": options.solver}
    start = None if resets is None else cell.restart(params, state, xs.shape[1:-2])
    state, start = jax.tree.map(lambda s: jnp.moveaxis(s, -2, 0), (state, start))

    def select_rows(flags: Array, new: State, old: State) -> State:
        return jax.tree.map(jax.vmap(functools.partial(select, flags)), new, old)

    def body(old: State, at: tuple[Array, Array | None, Array | None]) -> tuple[State, Array]:
        x, valid, reset = at
        above = old if reset is None else select_rows(reset, start, old)
        new = _row(cell, params, above, x, **across)
        new = new if valid is None else select_rows(valid, new, old)
        return new, new.h

    state, h = lax.scan(body, state, (jnp.moveaxis(xs, -2, 1), valid, resets), reverse=options.reverse)
    return jax.tree.map(lambda s: jnp.moveaxis(s, 0, -2), state), jnp.moveaxis(h, 1, -2)


class _Front(NamedTuple):
    """Data of one anti-diagonal for the N rows or columns of the front."""

    drive: PyTree  # [*batch, N, ...]
    inside: Array  # [*batch, N], whether the row or column has a place on it
    edge: State  # [*batch, 1, H], the state above the first row, or to the left of the first column
    fresh: tuple[Array, State] | None  # [*batch, N], whether a place begins a new plane, and the state above it then


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


def _run_fronts(cell: Plane, params: Params, xs: Array, state: State, options: Options) -> tuple[State, Array]:
    """Runs anti-diagonal after anti-diagonal: `(state, h [R, *batch, C, H])`."""
    record_scan(cell, options, "on this device a loop runs over the anti-diagonals")
    resets, lengths = options.resets_before, options.lengths
    if options.reverse:
        xs, resets = jax.tree.map(lambda a: flip(a, lengths), (xs, resets))
    planes: Any = _fronts(cell, params, xs, state, resets, options)
    ends = jnp.full((1, *options.batch_shape), len(xs)) if lengths is None else jnp.clip(lengths, 0, len(xs))[None]
    ends = spread_like(ends, planes.h[:1])
    final = jax.tree.map(lambda s, p: at(jnp.concatenate([s[None], p]), ends)[0], state, planes)
    return final, flip(planes.h, lengths) if options.reverse else planes.h


def _fronts(cell: Plane, params: Params, xs: Array, state: State, resets: Array | None, options: Options) -> State:
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
