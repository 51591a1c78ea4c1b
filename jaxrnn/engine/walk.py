"""A run over time as one operation, which a machine may carry out in a way of its own.

    forward     (consts, carry, xs) -> (carry, ys)
    keep        the same, and `kept`: what derivatives need to know of every step
    tangent     (consts, carry, xs, kept; dconsts, dcarry, dxs) -> (dcarry, dys)     linear in what comes after the ;
    cotangent   (consts, carry, xs, kept; dcarry, dys) -> (dconsts, dcarry, dxs)     its transpose

The derivative of `forward` is a `keep` and a `tangent`; `tangent` and `cotangent` are each other's transposes. All four
are one primitive, and there are two ways to do each. On the CPU, a native loop walks over the rows of the batch; it is
generated from what one row does in one step. Everywhere else, and for derivatives of derivatives, it is the reference:
the engine's own loop, and JAX's derivatives of it, which need nothing that was kept.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import ad, batching, mlir

from jaxrnn import native
from jaxrnn.engine.linearize import linear_program
from jaxrnn.engine.options import Save
from jaxrnn.engine.recurrence import is_real, reals, states_before
from jaxrnn.jaxprs import as_function, depends, interpret, new_primitive, sources, split
from jaxrnn.typing import Array, PyTree

__all__ = ["Run", "obstacle", "slower", "walk"]


Leaves = list[Any]


class Run(Protocol):
    """What runs over time; hashes and compares by value. Leaves of `carry` are `[B, ...]`, of `xs` `[T, B, ...]`."""

    @property
    def reverse(self) -> bool:
        """Whether the last step comes first."""

    @property
    def save(self) -> Save:
        """What is kept for the derivatives, as in `unroll`."""

    def whole(self, consts: PyTree, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        """The reference: `(carry, ys [T, B, ...])`."""

    def row(self, consts: PyTree, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        """One step of one row, without batch axes: `(carry, y)`."""

    def __hash__(self) -> int: ...


def obstacle(run: Run, consts: PyTree, carry: PyTree, xs: PyTree, axes: int) -> str:
    """Returns why a run over `axes` batch axes, and its gradient, cannot be native loops; empty if they can."""
    if reason := native.obstacle():
        return reason
    if jax.device_count() > 1:
        return f"{jax.device_count()} devices, and a native loop runs on one"
    leaves = jax.tree.leaves((consts, carry, xs))
    if any(not jax.typeof(leaf).sharding.mesh.empty for leaf in leaves):
        return "arrays on a mesh"
    if not all(isinstance(n, int) for n in jax.tree.leaves(xs)[0].shape):
        return "a symbolic number of steps or rows"
    return _unsupported(run, *_specs(consts, carry, xs, axes))


@functools.lru_cache(maxsize=512)
def _unsupported(run: Run, tree: Any, specs: tuple["_Spec", ...]) -> str:
    try:
        row = _row(run, tree, specs)
        derivative = _derivative(run, tree, specs, tuple(map(is_real, specs)))
        _ = row.forward, derivative.keep, derivative.cotangent((True,) * len(reals(row.ys)))
    except native.Unsupported as error:
        return str(error)
    except Exception as error:  # whatever is wrong with a step for the scan, too, is raised there
        return f"its step does not run without batch axes ({str(error).splitlines()[0]})"
    return ""


def slower(run: Run, consts: PyTree, carry: PyTree, xs: PyTree, axes: int) -> str:
    """Returns why a run that can be native is faster as a scan; empty if it is not."""
    steps, *batch_shape = jax.tree.leaves(xs)[0].shape[: 1 + axes]
    return native.fits(_row(run, *_specs(consts, carry, xs, axes)).forward, steps, math.prod(batch_shape))


def walk(run: Run, consts: PyTree, carry: PyTree, xs: PyTree, axes: int) -> tuple[PyTree, PyTree]:
    """Runs over all steps of `axes` batch axes as one operation: `(carry, ys [T, *batch, ...])`; T is at least 1."""
    batch_shape = jax.tree.leaves(xs)[0].shape[1 : 1 + axes]
    tree, specs = _specs(consts, carry, xs, axes)
    flat = [
        *jax.tree.leaves(consts),
        *(a.reshape(-1, *a.shape[axes:]) for a in jax.tree.leaves(carry)),
        *(a.reshape(len(a), -1, *a.shape[1 + axes :]) for a in jax.tree.leaves(xs)),
    ]
    found = _walk.bind(*flat, call=_Call("forward", run, tree, specs, (False,) * len(flat)))
    n = len(jax.tree.leaves(carry))
    found = [
        *(a.reshape(*batch_shape, *a.shape[1:]) for a in found[:n]),
        *(a.reshape(len(a), *batch_shape, *a.shape[2:]) for a in found[n:]),
    ]
    return jax.tree.unflatten(_row(run, tree, specs).results, found)


# What one row does in one step, and its derivative. Constants, carry and inputs are lists of leaves from here on.


class _Spec(NamedTuple):
    """Shape and dtype of what one row has at one step."""

    shape: tuple[int, ...]
    dtype: Any


def _specs(consts: PyTree, carry: PyTree, xs: PyTree, axes: int) -> tuple[Any, tuple[_Spec, ...]]:
    """The structure of the arguments, and what one row sees of each leaf."""
    parts = (consts, carry, xs)
    leading = (0, axes, 1 + axes)
    specs = (_Spec(a.shape[n:], a.dtype) for n, part in zip(leading, parts, strict=True) for a in jax.tree.leaves(part))
    return jax.tree.structure(parts), tuple(specs)


class _Row:
    """One step of one row, in two parts: what depends on the constants alone is computed once, ahead of all steps.

    So weights are transposed, normalized or divided into heads once, and their gradients go back through that once.
    """

    def __init__(self, run: Run, tree: Any, specs: tuple[_Spec, ...]) -> None:
        structs = [jax.ShapeDtypeStruct(*spec) for spec in specs]
        parts = jax.tree.unflatten(tree, structs)
        closed, results = jax.make_jaxpr(run.row, return_shape=True)(*parts)
        self.results = jax.tree.structure(results)
        n, m, _ = self.sizes = [len(jax.tree.leaves(part)) for part in parts]
        self.consts, self.carry, self.xs = structs[:n], structs[n : n + m], structs[n + m :]
        self.new, self.ys = (jax.tree.leaves(part) for part in results)
        self.fixed = [source == n + i for i, source in enumerate(sources(closed)[:m])]
        tags = ["constant"] * n + ["step"] * (len(specs) - n)
        nothing: Any = (lambda args: [], lambda args, given: as_function(closed)(*args))
        parted: Any = split(closed, tags, _kind, "constant", "step")
        self._ahead, self._rest = parted or nothing
        self.given = jax.eval_shape(self.ahead, self.consts)

    def ahead(self, consts: Leaves) -> Leaves:
        """What the steps read of the constants."""
        return self._ahead([*consts, *[None] * (len(self.carry) + len(self.xs))])

    def step(self, given: Leaves, carry: Leaves, x: Leaves) -> tuple[Leaves, Leaves]:
        """One step, from what `ahead` gives: `(carry, y)`."""
        results = self._rest([*[None] * len(self.consts), *carry, *x], given)
        return results[: len(carry)], results[len(carry) :]

    @functools.cached_property
    def forward(self) -> native.Row:
        """The step for the native loop."""
        return native.trace(lambda *args: (*self.step(*args), ()), self.given, self.carry, self.xs)


def _kind(eqn: Any, tags: list[Any]) -> Any:
    return "step" if "step" in tags or eqn.effects else "constant" if "constant" in tags else None


class _Derivative:
    """The derivative of a step with respect to its carry and to the leaves of constants and inputs that are flagged.

    It is a linear program with known coefficients (`linear_program`). Kept of every step are the states, from which the
    coefficients are computed again, or (`save="residuals"`, and "auto") the coefficients themselves, some of which may
    be states.
    """

    def __init__(self, row: _Row, active: tuple[bool, ...], residuals: bool) -> None:
        n, m, _ = row.sizes
        self.row, self.consts, self.carry, self.xs = row, active[:n], active[n : n + m], active[n + m :]
        found = depends(jax.make_jaxpr(row.ahead)(row.consts), self.consts)
        self.given = [flag and is_real(a) for flag, a in zip(found, row.given, strict=True)]
        self.states = [not fixed for fixed in row.fixed]  # which leaves of the carry are kept
        self.saved: list[bool] = []  # which coefficients are kept
        self.coefficients: Leaves = []
        self.cotangent = functools.cache(self._cotangent)
        if residuals:
            closed, known = jax.make_jaxpr(lambda *at: self.program(*at)[1], return_shape=True)(
                row.given, row.carry, row.xs
            )
            tags = [*[None] * len(row.given), *range(m), *[m] * len(row.xs)]
            tags = interpret(closed, tags, tags, _from_step)[1]
            self.saved = [tag == "step" for tag in tags]
            self.states = [i in tags and not fixed for i, fixed in enumerate(row.fixed)]
            self.coefficients = _pick(known, self.saved)

    @property
    def kept(self) -> Leaves:
        """What is kept of a step."""
        return [*_pick(self.row.carry, self.states), *self.coefficients]

    def program(self, given: Leaves, carry: Leaves, x: Leaves) -> tuple[Callable[[Leaves, PyTree], Any], Leaves]:
        """`(apply, coefficients)`: the derivative at a point is `apply(coefficients, (dgiven, dcarry, dx))`."""
        point = _pick(given, self.given), _pick(carry, self.carry), _pick(x, self.xs)

        def step(moved: PyTree) -> tuple[Leaves, Leaves]:
            dgiven, dcarry, dx = moved
            new, y = self.row.step(
                _put(given, self.given, dgiven), _put(carry, self.carry, dcarry), _put(x, self.xs, dx)
            )
            return reals(new), reals(y)

        return linear_program(jax.linearize(step, point)[1], point)

    def known(
        self, given: Leaves, fixed: Leaves, x: Leaves, kept: Leaves
    ) -> tuple[Callable[[Leaves, PyTree], Any], Leaves]:
        """`program` from what was kept; what was not and is not read is zero."""
        zeros = [jnp.zeros(a.shape, a.dtype) for a in self.row.carry]
        count = sum(self.states)
        carry = _put(_put(zeros, self.row.fixed, fixed), self.states, kept[:count])
        apply, known = self.program(given, carry, x)
        return apply, _put(known, self.saved, kept[count:]) if self.saved else known

    # The steps of the native loops. Fixed leaves of the carry go along.

    def keeping(self, given: Leaves, carry: Leaves, x: Leaves) -> tuple[Leaves, Leaves]:
        """A step that returns with its output what is kept."""
        new, y = self.row.step(given, carry, x)
        saved = _pick(self.program(given, carry, x)[1], self.saved) if self.saved else []
        return new, [*y, *_pick(new, self.states), *saved]

    @functools.cached_property
    def keep(self) -> native.Row:
        """A step of the run that keeps."""
        return native.trace(lambda *args: (*self.keeping(*args), ()), self.row.given, self.row.carry, self.row.xs)

    @functools.cached_property
    def tangent(self) -> native.Row:
        """A step of the tangents' walk."""

        def step(consts: Any, carry: Any, at: Any) -> Any:
            (given, dgiven), (dcarry, fixed), (kept, x, dx) = consts, carry, at
            apply, known = self.known(given, fixed, x, kept)
            dcarry, dys = apply(known, (dgiven, dcarry, dx))
            return (dcarry, fixed), dys, ()

        row = self.row
        consts = row.given, _pick(row.given, self.given)
        carry = _pick(row.carry, self.carry), _pick(row.carry, row.fixed)
        return native.trace(step, consts, carry, (self.kept, row.xs, _pick(row.xs, self.xs)))

    def _cotangent(self, dys: tuple[bool, ...]) -> native.Row:
        """A step of the cotangents' walk; flagged outputs have cotangents."""
        row = self.row
        point = _pick(row.given, self.given), _pick(row.carry, self.carry), _pick(row.xs, self.xs)
        ys = reals(row.ys)

        def step(given: Leaves, carry: Any, at: Any) -> Any:
            (dcarry, fixed), (kept, x, dy) = carry, at
            apply, known = self.known(given, fixed, x, kept)
            dy = _put([jnp.zeros(y.shape, y.dtype) for y in ys], dys, dy)
            ((dgiven, dcarry, dx),) = jax.linear_transpose(functools.partial(apply, known), point)((dcarry, dy))
            return (dcarry, fixed), dx, dgiven

        carry = point[1], _pick(row.carry, row.fixed)
        return native.trace(step, row.given, carry, (self.kept, row.xs, _pick(ys, dys)))


def _from_step(eqn: Any, values: Leaves, tags: Leaves) -> tuple[Leaves, Leaves]:
    tag = None if all(t is None for t in tags) else "step"
    return [None] * len(eqn.outvars), [tag] * len(eqn.outvars)


def _pick(leaves: Iterable[Any], flags: Iterable[bool]) -> Leaves:
    return [leaf for leaf, flag in zip(leaves, flags, strict=True) if flag]


def _put(leaves: Iterable[Any], flags: Iterable[bool], new: Iterable[Any]) -> Leaves:
    """Replaces the flagged leaves."""
    source = iter(new)
    return [next(source) if flag else leaf for leaf, flag in zip(leaves, flags, strict=True)]


_row = functools.lru_cache(maxsize=512)(_Row)


@functools.lru_cache(maxsize=512)
def _derivative(run: Run, tree: Any, specs: tuple[_Spec, ...], active: tuple[bool, ...]) -> _Derivative:
    return _Derivative(_row(run, tree, specs), active, run.save in ("auto", "residuals"))


# The primitive


@dataclass(frozen=True)
class _Call:
    """One of the four kinds of a run, and what it is about."""

    kind: Literal["forward", "keep", "tangent", "cotangent"]
    run: Run
    tree: Any
    specs: tuple[_Spec, ...]
    active: tuple[bool, ...]  # leaves of the arguments with tangents; all real leaves of the carry
    dys: tuple[bool, ...] = ()  # real leaves of `ys` with cotangents

    @property
    def row(self) -> _Row:
        return _row(self.run, self.tree, self.specs)

    @property
    def derivative(self) -> _Derivative:
        return _derivative(self.run, self.tree, self.specs, self.active)

    def arguments(self) -> list[Leaves]:
        """Groups of what the call takes, at one step of one row, each of constants, carries or inputs by turns."""
        row = self.row
        groups = [row.consts, row.carry, row.xs]
        if self.kind in ("tangent", "cotangent"):
            groups += [[], [], self.derivative.kept]
        if self.kind == "tangent":
            groups += self._moved()
        if self.kind == "cotangent":
            groups += [[], reals(row.carry), _pick(reals(row.ys), self.dys)]
        return groups

    def results(self) -> list[Leaves]:
        """Groups of what it gives."""
        row = self.row
        if self.kind == "cotangent":
            return self._moved()
        if self.kind == "tangent":
            return [[], reals(row.new), reals(row.ys)]
        return [[], row.new, [*row.ys, *(self.derivative.kept if self.kind == "keep" else [])]]

    def _moved(self) -> list[Leaves]:
        row, d = self.row, self.derivative
        return [_pick(row.consts, d.consts), _pick(row.carry, d.carry), _pick(row.xs, d.xs)]

    def groups(self, args: Sequence[Any]) -> list[Leaves]:
        """Divides the arguments."""
        source = iter(args)
        return [[next(source) for _ in group] for group in self.arguments()]

    def reference(self, *args: Any) -> Leaves:
        """The call by the engine's own loop."""
        consts, carry, xs, *rest = self.groups(args)
        run, row = self.run, self.row
        if self.kind == "keep":
            rows = jax.vmap(functools.partial(self.derivative.keeping, row.ahead(consts)))
            carry, ys = lax.scan(rows, carry, xs, reverse=run.reverse)
            return [*carry, *ys]

        def whole(consts: Leaves, carry: Leaves, xs: Leaves) -> tuple[Leaves, Leaves]:
            parts = jax.tree.unflatten(self.tree, [*consts, *carry, *xs])
            new, ys = run.whole(*parts)
            return jax.tree.leaves(new), jax.tree.leaves(ys)

        if self.kind == "forward":
            return jax.tree.leaves(whole(consts, carry, xs))
        d = self.derivative

        def moving(dconsts: Leaves, dcarry: Leaves, dxs: Leaves) -> tuple[Leaves, Leaves]:
            new, ys = whole(_put(consts, d.consts, dconsts), _put(carry, d.carry, dcarry), _put(xs, d.xs, dxs))
            return reals(new), reals(ys)

        point = _pick(consts, d.consts), _pick(carry, d.carry), _pick(xs, d.xs)
        if self.kind == "tangent":
            return jax.tree.leaves(jax.jvp(moving, point, tuple(rest[3:]))[1])
        (_, ys), pull = jax.vjp(moving, *point)
        _, dcarry, dys = rest[3:]
        return jax.tree.leaves(pull((dcarry, _put([jnp.zeros_like(y) for y in ys], self.dys, dys))))

    def native(self, *args: Any) -> Leaves:
        """The call by a native loop."""
        consts, carry, xs, *rest = self.groups(args)
        row, reverse = self.row, self.run.reverse
        if self.kind == "forward":
            return jax.tree.leaves(native.walk(row.forward, row.ahead(consts), carry, xs, reverse=reverse))
        d = self.derivative
        if self.kind == "keep":
            return jax.tree.leaves(native.walk(d.keep, row.ahead(consts), carry, xs, reverse=reverse))

        def ahead(moved: Leaves) -> tuple[Leaves, Leaves]:
            given = row.ahead(_put(consts, d.consts, moved))
            return _pick(given, d.given), given

        _, _, kept, dconsts, dcarry, last = rest
        first, count = _pick(carry, d.states), sum(d.states)
        fixed = _pick(carry, row.fixed)
        moved = _pick(consts, d.consts)
        if self.kind == "tangent":
            _, dgiven, given = jax.jvp(ahead, (moved,), (dconsts,), has_aux=True)
            before = [states_before(f, k, reverse) for f, k in zip(first, kept[:count], strict=True)]
            at = ([*before, *kept[count:]], xs, last)
            (dcarry, _), dys, _ = native.walk(d.tangent, (given, dgiven), (dcarry, fixed), at, reverse=reverse)
            return [*dcarry, *dys]
        _, pull, given = jax.vjp(ahead, moved, has_aux=True)
        shifted = [native.Shifted(f, k) for f, k in zip(first, kept[:count], strict=True)]
        at = ([*shifted, *kept[count:]], xs, last)
        (dcarry, _), dxs, dgiven = native.walk(d.cotangent(self.dys), given, (dcarry, fixed), at, reverse=not reverse)
        return [*pull(dgiven)[0], *dcarry, *dxs]


_walk = new_primitive("walk")


@functools.partial(jax.jit, static_argnames="call")
def _eager(*args: Any, call: _Call) -> Leaves:
    return _walk.bind(*args, call=call)


@_walk.def_abstract_eval
def _abstract(*args: Any, call: _Call) -> Leaves:
    sizes = next(a.shape[:2] for a, axes in zip(args, _leading(call.arguments()), strict=True) if axes == 2)
    groups = call.results()
    leaves = [leaf for group in groups for leaf in group]
    return [
        jax.core.ShapedArray((*sizes[2 - axes :], *leaf.shape), leaf.dtype)
        for leaf, axes in zip(leaves, _leading(groups), strict=True)
    ]


def _leading(groups: list[Leaves]) -> list[int]:
    """How many axes of time and rows each leaf has: constants, carries and inputs take turns in the groups."""
    return [i % 3 for i, group in enumerate(groups) for _ in group]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, call: _Call) -> tuple[Leaves, Leaves]:
    n = len(call.specs)
    moves = [type(t) is not ad.Zero and is_real(t) for t in tangents]
    if call.kind == "forward":
        consts, carry, _ = call.row.sizes
        active = tuple(
            is_real(spec) if consts <= i < consts + carry else moved
            for i, (spec, moved) in enumerate(zip(call.specs, moves, strict=True))
        )
        keep = replace(call, kind="keep", active=active)
        results = _walk.bind(*primals, call=keep)
        ys = results[: len(call.row.new) + len(call.row.ys)]
        linear = [ad.instantiate_zeros(t) for t in _pick(tangents, active)]
        kept = results[len(ys) :]
        moved = iter(_walk.bind(*primals, *kept, *linear, call=replace(keep, kind="tangent")))
        return ys, [next(moved) if is_real(y) else _zero(y) for y in ys]
    if not any(moves[:n]) and call.kind != "keep":
        m = len(primals) - sum(len(g) for g in call.arguments()[6:])
        linear = [ad.instantiate_zeros(t) for t in tangents[m:]]
        return _walk.bind(*primals, call=call), _walk.bind(*primals[:m], *linear, call=call)
    # Nothing that is made of `kept` depends on it by these rules, so its tangents do not matter.
    moved = tuple(_full(p, t) for p, t in zip(primals, tangents, strict=True))
    if call.kind == "keep":
        results = _walk.bind(*primals, call=call)
        _, dresults = jax.jvp(replace(call, kind="forward").reference, tuple(primals), moved)
        dresults = [d if is_real(y) else _zero(y) for d, y in zip(dresults, results, strict=False)]
        return results, [*dresults, *(_zero(k) for k in results[len(dresults) :])]
    return jax.jvp(call.reference, tuple(primals), moved)


def _zero(value: Any) -> Any:
    return ad.Zero(jax.typeof(value).to_tangent_aval())


def _full(primal: Any, tangent: Any) -> Any:
    if not is_real(primal):
        return np.zeros(primal.shape, jax.dtypes.float0)
    return ad.instantiate_zeros(tangent)


def _transpose(cts: Sequence[Any], *args: Any, call: _Call) -> Leaves:
    n = len(call.specs) + len(call.derivative.kept)
    known, linear = args[:n], args[n:]
    if call.kind == "tangent":
        dcarry, dys = cts[: len(reals(call.row.new))], cts[len(reals(call.row.new)) :]
        flags = tuple(type(ct) is not ad.Zero for ct in dys)
        given = [ad.instantiate_zeros(ct) for ct in dcarry] + _pick(dys, flags)
        found = _walk.bind(*known, *given, call=replace(call, kind="cotangent", dys=flags))
    else:
        moved = [ad.instantiate_zeros(ct) for ct in cts]
        found = _walk.bind(*known, *moved, call=replace(call, kind="tangent", dys=()))
        dcarry = found[: len(reals(call.row.new))]
        found = [*dcarry, *_pick(found[len(dcarry) :], call.dys)]
    return [None] * n + [f if ad.is_undefined_primal(a) else None for f, a in zip(found, linear, strict=True)]


def _batch(args: Sequence[Any], dims: Sequence[int | None], *, call: _Call) -> tuple[Leaves, list[int]]:
    """More rows; where the constants have a batch axis, or their gradients, one call after the other."""
    axes, results = _leading(call.arguments()), _leading(call.results())
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    if 0 in results or any(axis == 0 and d is not None for axis, d in zip(axes, dims, strict=True)):
        batched = [d is not None for d in dims]
        moved = [jnp.moveaxis(a, d, 0) for a, d in zip(args, dims, strict=True) if d is not None]
        found = lax.map(lambda some: _walk.bind(*_put(args, batched, some), call=call), moved)
        return found, [0] * len(found)

    def more(a: Array, d: int | None, axis: int) -> Array:
        """The new axis before that of the rows, as one."""
        if axis == 0:
            return a
        at = axis - 1
        if d is None:
            a = jnp.broadcast_to(jnp.expand_dims(a, at), (*a.shape[:at], size, *a.shape[at:]))
        else:
            a = jnp.moveaxis(a, d, at)
        return a.reshape(*a.shape[:at], -1, *a.shape[at + 2 :])

    found = _walk.bind(*[more(*one) for one in zip(args, dims, axes, strict=True)], call=call)
    split = [f.reshape(*f.shape[: r - 1], size, -1, *f.shape[r:]) for f, r in zip(found, results, strict=True)]
    return split, [r - 1 for r in results]


def _lower(ctx: Any, *args: Any, call: _Call) -> Any:
    # What is exported runs in processes that have not made these loops.
    way = call.reference if ctx.module_context.lowering_parameters.for_export else call.native
    return mlir.lower_fun(way, multiple_results=True)(ctx, *args)


_walk.def_impl(_eager)
ad.primitive_jvps[_walk] = _jvp
ad.primitive_transposes[_walk] = _transpose
batching.primitive_batchers[_walk] = _batch
mlir.register_lowering(_walk, mlir.lower_fun(lambda *args, call: call.reference(*args), multiple_results=True))
mlir.register_lowering(_walk, _lower, platform="cpu")
