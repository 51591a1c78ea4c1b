"""What one row of a batch does in one step of a run, and its derivative: the functions that kernels are made of.

Constants, carry and inputs are lists of leaves here.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxrnn.engine.linearize import linear_program
from jaxrnn.engine.meshes import without_mesh
from jaxrnn.engine.options import Save
from jaxrnn.engine.parts import apart, in_real_numbers, is_complex, together
from jaxrnn.engine.recurrence import is_real, reals
from jaxrnn.jaxprs import LENGTH, as_function, control_flow, depends, mixer, sources, split, tags_of
from jaxrnn.typing import PyTree

__all__ = [
    "Derivative",
    "Leaves",
    "RowFunction",
    "Run",
    "Spec",
    "Step",
    "Untraceable",
    "derivative_of",
    "jax_settings",
    "kernel_run",
    "mixed",
    "of_cell",
    "pick",
    "put",
    "specs_of",
    "step_of",
    "tangent_row",
    "with_axes",
]

Leaves = list[Any]


class Untraceable(Exception):
    """The code of a cell, or of the derivative of an operation in it, raises an error; the text tells which."""


def of_cell(fun: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that runs code of a cell, which may raise anything, and raises `Untraceable` of it."""

    @functools.wraps(fun)
    def guarded(*args: Any) -> Any:
        try:
            return fun(*args)
        except Exception as error:
            raise Untraceable(": ".join([type(error).__name__, *str(error).splitlines()[:1]])) from error

    return guarded


class Run(Protocol):
    """What runs over time; hashes and compares by value. Leaves of `carry` are `[B, ...]`, of `xs` `[T, B, ...]`."""

    @property
    def reverse(self) -> bool:
        """Whether the last step comes first."""

    @property
    def save(self) -> Save:
        """What is kept for the derivatives, as in `unroll`."""

    def whole(self, consts: PyTree, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        """Runs the reference: `(carry, ys [T, B, ...])`."""

    def row(self, consts: PyTree, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        """Takes one step of one row, without batch axes: `(carry, y)`."""

    def __hash__(self) -> int: ...


Given = tuple[PyTree, PyTree, PyTree]
"""Constants, carry and inputs of a run."""


def kernel_run(run: Run, given: Given) -> tuple[Run, Given]:
    """Returns a run and its arguments as kernels take them: complex leaves are `Parts`."""
    return (_RealRun(run), apart(given)) if any(map(is_complex, jax.tree.leaves(given))) else (run, given)


@dataclass(frozen=True)
class _RealRun:
    """A run whose complex leaves are `Parts`."""

    run: Run

    def __str__(self) -> str:
        return str(self.run)

    @property
    def reverse(self) -> bool:
        return self.run.reverse

    @property
    def save(self) -> Save:
        return self.run.save

    def whole(self, *parts: PyTree) -> Any:
        return apart(self.run.whole(*together(parts)))

    def row(self, *parts: PyTree) -> Any:
        return apart(self.run.row(*together(parts)))


Spec = jax.ShapeDtypeStruct
"""Shape and dtype of what one row has at one step."""


def specs_of(consts: PyTree, carry: PyTree, xs: PyTree, axes: int) -> tuple[Any, tuple[Spec, ...]]:
    """Returns the structure of the arguments, and what one row sees of each leaf."""
    parts = (consts, carry, xs)
    leading = (0, axes, 1 + axes)
    specs = (Spec(a.shape[n:], a.dtype) for n, part in zip(leading, parts, strict=True) for a in jax.tree.leaves(part))
    return jax.tree.structure(parts), tuple(specs)


def mixed(run: Run, tree: Any, specs: tuple[Spec, ...]) -> str:
    """Returns why a step of all rows is no step of each row by itself, empty if it is."""
    consts, carry, xs = jax.tree.unflatten(tree, specs)
    program = with_axes(run.row, (consts,), (carry, xs))
    # What happens within is not looked at, and no machine's kernels have any.
    if name := control_flow(program(LENGTH), [i >= len(jax.tree.leaves(consts)) for i in range(len(specs))]):
        return f"its step has a loop or a branch of its own ({name})"
    name = mixer(program)
    return f"its rows see each other ({name})" if name else ""


def with_axes(fun: Callable[..., Any], still: Sequence[Any], moving: Sequence[Any]) -> Callable[..., Any]:
    """Returns `(*lengths) -> program` of `fun(*still, *moving)`, with so long axes before those of `moving` specs."""

    @functools.cache
    def program(*lead: int) -> Any:
        return jax.make_jaxpr(of_cell(fun))(*still, *jax.tree.map(lambda a: Spec((*lead, *a.shape), a.dtype), moving))

    return program


@dataclass(frozen=True, eq=False)
class RowFunction:
    """A function of one row and step, `(consts, carry, x) -> (carry, y, sums)`, with specs of what it takes."""

    fun: Callable[..., Any]
    consts: PyTree
    carry: PyTree
    xs: PyTree


def jax_settings() -> tuple[Any, ...]:
    """Returns JAX's settings that change what a step is traced to: runs under different ones are different runs.

    The backend is one of them: equations may differ from one to the other, such as those of `ops.blockwise`.
    """
    states = jax.enable_x64, jax.default_matmul_precision, jax.numpy_dtype_promotion, jax.numpy_rank_promotion
    return (jax.default_backend(), *(state.value for state in states))


@functools.lru_cache(maxsize=512)
def tangent_row(row: RowFunction, moves: tuple[bool, ...]) -> RowFunction:
    """Computes a row function's tangents along its flagged leaves: each argument is a pair of values and tangents."""
    parts = row.consts, row.carry, row.xs
    tree = jax.tree.structure(parts)
    flags = iter(moves)
    tangents = [[leaf for leaf in jax.tree.leaves(part) if next(flags)] for part in parts]

    def step(*pairs: Any) -> Any:
        values = jax.tree.leaves([value for value, _ in pairs])

        def along(moving: Leaves) -> Any:
            carry, y, sums = row.fun(*jax.tree.unflatten(tree, put(values, moves, moving)))
            return (reals(carry), reals(y), reals(sums)), carry

        moving = [t for _, tangents in pairs for t in tangents]
        _, (dcarry, dy, dsums), carry = jax.jvp(along, (pick(values, moves),), (moving,), has_aux=True)
        return (carry, dcarry), dy, dsums

    return RowFunction(step, *zip(parts, tangents, strict=True))


class Step:
    """One step of one row, in two parts: what depends on the constants alone is computed once, ahead of all steps.

    So weights are transposed, normalized or divided into heads once, and their gradients go back through that once.
    """

    def __init__(self, run: Run, tree: Any, specs: tuple[Spec, ...]) -> None:
        parts = jax.tree.unflatten(tree, specs)
        closed, results = jax.make_jaxpr(of_cell(run.row), return_shape=True)(*parts)
        self.results = jax.tree.structure(results)
        n, m, _ = self.sizes = [len(jax.tree.leaves(part)) for part in parts]
        closed = in_real_numbers(closed, fixed=n)
        self.consts, self.carry, self.xs = list(specs[:n]), list(specs[n : n + m]), list(specs[n + m :])
        self.new, self.ys = (jax.tree.leaves(part) for part in results)
        self.fixed = [source == n + i for i, source in enumerate(sources(closed)[:m])]
        tags = ["constant"] * n + ["step"] * (len(specs) - n)
        nothing: Any = (lambda args: [], lambda args, given: as_function(closed)(*args))
        parted: Any = split(closed, tags, _kind, "constant", "step")
        self._ahead, self._rest = parted or nothing
        self.given = jax.eval_shape(self.ahead, self.consts)

    def ahead(self, consts: Leaves) -> Leaves:
        """Computes what the steps read of the constants."""
        return self._ahead([*consts, *[None] * (len(self.carry) + len(self.xs))])

    def step(self, given: Leaves, carry: Leaves, x: Leaves) -> tuple[Leaves, Leaves]:
        """Takes one step, from what `ahead` gives: `(carry, y)`."""
        results = self._rest([*[None] * len(self.consts), *carry, *x], given)
        return results[: len(carry)], results[len(carry) :]

    @functools.cached_property
    def forward(self) -> RowFunction:
        """A step of the run."""
        return RowFunction(lambda *args: (*self.step(*args), ()), self.given, self.carry, self.xs)


def _kind(eqn: Any, tags: list[Any]) -> Any:
    return "step" if "step" in tags or eqn.effects else "constant" if "constant" in tags else None


class Derivative:
    """The derivative of a step with respect to its carry and to the leaves of constants and inputs that are flagged.

    It is a linear program with known coefficients (`linear_program`). Kept of every step are the states, from which the
    coefficients are computed again, or (`save="residuals"`, and "auto") the coefficients themselves, some of which may
    be states.
    """

    def __init__(self, row: Step, active: tuple[bool, ...], residuals: bool) -> None:
        n, m, _ = row.sizes
        self.row, self.consts, self.carry, self.xs = row, active[:n], active[n : n + m], active[n + m :]
        found = depends(jax.make_jaxpr(row.ahead)(row.consts), self.consts)
        self.given = [flag and is_real(a) for flag, a in zip(found, row.given, strict=True)]
        self.states = [not fixed for fixed in row.fixed]  # which leaves of the carry are kept
        self.saved: list[bool] = []  # which coefficients are kept
        self.coefficients: Leaves = []
        self.cotangent = functools.cache(self._cotangent)
        self.moved = functools.cache(self._moved)
        if residuals:
            coefficients = of_cell(lambda *at: self.program(*at)[1])
            closed, known = jax.make_jaxpr(coefficients, return_shape=True)(row.given, row.carry, row.xs)
            tags = [*[None] * len(row.given), *range(m), *[m] * len(row.xs)]
            tags = tags_of(closed, tags, _computed)
            self.saved = [tag == "step" for tag in tags]
            self.states = [i in tags and not fixed for i, fixed in enumerate(row.fixed)]
            self.coefficients = pick(known, self.saved)

    @property
    def kept(self) -> Leaves:
        """What is kept of a step."""
        return [*pick(self.row.carry, self.states), *self.coefficients]

    def program(self, given: Leaves, carry: Leaves, x: Leaves) -> tuple[Callable[[Leaves, PyTree], Any], Leaves]:
        """Returns `(apply, coefficients)`: the derivative at a point is `apply(coefficients, (dgiven, dcarry, dx))`."""
        point = pick(given, self.given), pick(carry, self.carry), pick(x, self.xs)

        def step(moved: PyTree) -> tuple[Leaves, Leaves]:
            dgiven, dcarry, dx = moved
            new, y = self.row.step(put(given, self.given, dgiven), put(carry, self.carry, dcarry), put(x, self.xs, dx))
            return reals(new), reals(y)

        return linear_program(jax.linearize(step, point)[1], point)

    def known(
        self, given: Leaves, fixed: Leaves, x: Leaves, kept: Leaves
    ) -> tuple[Callable[[Leaves, PyTree], Any], Leaves]:
        """Returns `program` from what was kept; what was not kept and is not read is zero."""
        zeros = [jnp.zeros(a.shape, a.dtype) for a in self.row.carry]
        count = sum(self.states)
        carry = put(put(zeros, self.row.fixed, fixed), self.states, kept[:count])
        apply, known = self.program(given, carry, x)
        return apply, put(known, self.saved, kept[count:]) if self.saved else known

    # The steps of the kernels. Fixed leaves of the carry go along.

    def keeping(self, given: Leaves, carry: Leaves, x: Leaves) -> tuple[Leaves, Leaves]:
        """Takes a step that returns with its output what is kept."""
        new, y = self.row.step(given, carry, x)
        saved = pick(self.program(given, carry, x)[1], self.saved) if self.saved else []
        return new, [*y, *pick(new, self.states), *saved]

    @functools.cached_property
    def keep(self) -> RowFunction:
        """A step of the run that keeps."""
        return RowFunction(lambda *args: (*self.keeping(*args), ()), self.row.given, self.row.carry, self.row.xs)

    @functools.cached_property
    def tangent(self) -> RowFunction:
        """A step of the tangents' run."""

        def step(consts: Any, carry: Any, at: Any) -> Any:
            (given, dgiven), (dcarry, fixed), (kept, x, dx) = consts, carry, at
            apply, known = self.known(given, fixed, x, kept)
            dcarry, dys = apply(known, (dgiven, dcarry, dx))
            return (dcarry, fixed), dys, ()

        row = self.row
        consts = row.given, pick(row.given, self.given)
        carry = pick(row.carry, self.carry), pick(row.carry, row.fixed)
        return RowFunction(step, consts, carry, (self.kept, row.xs, pick(row.xs, self.xs)))

    def _cotangent(self, dys: tuple[bool, ...], sums: bool) -> RowFunction:
        """A step of the cotangents' run; flagged outputs have cotangents.

        With `sums` it gives the cotangents of its inputs and, as sums, of the constants. Without, it gives those of its
        carry, from which `pulled` makes both.
        """
        row = self.row
        point = pick(row.given, self.given), pick(row.carry, self.carry), pick(row.xs, self.xs)
        ys = reals(row.ys)

        def step(given: Leaves, carry: Any, at: Any) -> Any:
            (dcarry, fixed), (kept, x, dy) = carry, at
            apply, known = self.known(given, fixed, x, kept)

            def flagged(moved: PyTree) -> tuple[Leaves, Leaves]:
                new, dys_of_all = apply(known, moved)
                return new, pick(dys_of_all, dys)

            ((dgiven, before, dx),) = jax.linear_transpose(flagged, point)((dcarry, dy))
            return (before, fixed), *((dx, dgiven) if sums else (dcarry, ()))

        carry = point[1], pick(row.carry, row.fixed)
        return RowFunction(step, row.given, carry, (self.kept, row.xs, pick(ys, dys)))

    def _moved(self, dys: tuple[bool, ...]) -> list[bool]:
        """Flags those of `given` with tangents on which those of the carry or of flagged outputs depend.

        The others' cotangents are no zeros to go on from: zero times the derivative of a root at zero is no number.
        """
        row = self.row
        point = pick(row.given, self.given), pick(row.carry, self.carry), pick(row.xs, self.xs)

        def tangents(moved: PyTree, *at: Leaves) -> Leaves:
            apply, known = self.program(*at)
            new, of_ys = apply(known, moved)
            return [*new, *pick(of_ys, dys)]

        closed = jax.make_jaxpr(of_cell(tangents))(point, row.given, row.carry, row.xs)
        nothing = [frozenset[int]()] * (len(closed.jaxpr.invars) - len(point[0]))
        tags = [*(frozenset({i}) for i in range(len(point[0]))), *nothing]
        found = tags_of(closed, tags, lambda _, tags: frozenset().union(*filter(None, tags)))
        used = frozenset().union(*filter(None, found))
        return [i in used for i in range(len(point[0]))]

    def pulled(
        self,
        flags: tuple[bool, ...],
        given: Leaves,
        fixed: Leaves,
        kept: Leaves,
        xs: Leaves,
        dcarry: Leaves,
        dys: Leaves,
    ) -> tuple[Leaves, Leaves]:
        """Cotangents `(dgiven, dxs)` from those of all new carries and flagged outputs, leaves `[T, B, ...]`."""
        zeros = [jnp.zeros(a.shape, a.dtype) for a in pick(self.row.carry, self.carry)]

        def one(dgiven: Leaves, fixed: Leaves, kept: Leaves, x: Leaves, dx: Leaves) -> tuple[Leaves, Leaves]:
            apply, known = self.known(given, fixed, x, kept)
            dcarry, dys = apply(known, (dgiven, zeros, dx))
            return dcarry, pick(dys, flags)

        def every(dgiven: Leaves, dxs: Leaves) -> tuple[Leaves, Leaves]:
            rows = jax.vmap(one, (None, 0, 0, 0, 0))
            return jax.vmap(rows, (None, None, 0, 0, 0))(dgiven, fixed, kept, xs, dxs)

        return jax.linear_transpose(every, pick(given, self.given), pick(xs, self.xs))((dcarry, dys))


def _computed(eqn: Any, tags: Leaves) -> str | None:
    return None if all(tag is None for tag in tags) else "step"


def pick(leaves: Iterable[Any], flags: Iterable[bool]) -> Leaves:
    """Returns the flagged leaves."""
    return [leaf for leaf, flag in zip(leaves, flags, strict=True) if flag]


def put(leaves: Iterable[Any], flags: Iterable[bool], new: Iterable[Any]) -> Leaves:
    """Replaces the flagged leaves."""
    source = iter(new)
    return [next(source) if flag else leaf for leaf, flag in zip(leaves, flags, strict=True)]


@functools.lru_cache(maxsize=512)
def step_of(run: Run, tree: Any, specs: tuple[Spec, ...]) -> Step:
    """Returns one step of a run's rows, traced once."""
    with without_mesh():
        return Step(run, tree, specs)


@functools.lru_cache(maxsize=512)
def derivative_of(run: Run, tree: Any, specs: tuple[Spec, ...], active: tuple[bool, ...]) -> Derivative:
    """Returns the derivative of a run's step, made once."""
    with without_mesh():
        return Derivative(step_of(run, tree, specs), active, run.save in ("auto", "residuals"))
