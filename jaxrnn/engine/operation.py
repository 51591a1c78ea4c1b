"""A run over time as one operation, which a machine may carry out by a kernel of its own.

    forward     (consts, carry, xs) -> (carry, ys)
    keep        the same, and `kept`: what derivatives need to know of every step
    tangent     (consts, carry, xs, kept; dconsts, dcarry, dxs) -> (dcarry, dys)     linear in what comes after the ;
    cotangent   (consts, carry, xs, kept; dcarry, dys) -> (dconsts, dcarry, dxs)     its transpose

The derivative of `forward` is a `keep` and a `tangent`; `tangent` and `cotangent` are each other's transposes. All four
are one primitive, and there are two ways to do each. On the CPU and on a TPU it is a kernel, which the machine's room
generates from what one row does in one step. Everywhere else, and for derivatives of derivatives, it is the reference:
the engine's own loop, and JAX's derivatives of it, which need nothing that was kept.
"""

import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import ad, batching, mlir

from jaxrnn import native
from jaxrnn.engine.machines import MACHINES, Machine, here, traced
from jaxrnn.engine.recurrence import is_real, reals, states_before
from jaxrnn.engine.rows import (
    Derivative,
    Leaves,
    RowFunction,
    Run,
    Spec,
    Step,
    derivative_of,
    pick,
    put,
    specs_of,
    step_of,
)
from jaxrnn.jaxprs import new_primitive
from jaxrnn.typing import Array, PyTree

__all__ = ["few", "obstacle", "run_as_one", "slower"]


def obstacle(run: Run, consts: PyTree, carry: PyTree, xs: PyTree, axes: int) -> str:
    """Returns why a run over `axes` batch axes, and its gradient, cannot be native kernels; empty if they can."""
    machine = here()
    if reason := machine.obstacle():
        return reason
    if jax.device_count() > 1:
        return f"{jax.device_count()} devices, and a native kernel runs on one"
    leaves = jax.tree.leaves((consts, carry, xs))
    if any(not jax.typeof(leaf).sharding.mesh.empty for leaf in leaves):
        return "arrays on a mesh"
    steps, *batch_shape = jax.tree.leaves(xs)[0].shape[: 1 + axes]
    if not all(isinstance(n, int) for n in (steps, *batch_shape)):
        return "a symbolic number of steps or rows"
    return _unsupported(machine, run, *specs_of(consts, carry, xs, axes), steps, math.prod(batch_shape))


@functools.lru_cache(maxsize=512)
def _unsupported(machine: Machine, run: Run, tree: Any, specs: tuple["Spec", ...], steps: int, batch: int) -> str:
    forward = _Call("forward", run, tree, specs, (False,) * len(specs))
    keep = replace(forward, kind="keep", active=tuple(map(is_real, specs)))
    try:
        back = replace(keep, kind="cotangent", dys=(True,) * len(reals(forward.row.ys)))
        return next(filter(None, (call.refusal(machine, steps, batch) for call in (forward, keep, back))), "")
    except Exception as error:  # whatever is wrong with a step for the scan, too, is raised there
        return f"its step does not run without batch axes ({str(error).splitlines()[0]})"


def few(steps: int, batch_shape: tuple[int, ...]) -> str:
    """Returns why the scan is faster for a run of this size, whatever the cell; empty if that is not known."""
    known = all(isinstance(n, int) for n in (steps, *batch_shape))
    return here().few(steps, math.prod(batch_shape)) if known else ""


def slower(run: Run, consts: PyTree, carry: PyTree, xs: PyTree, axes: int) -> str:
    """Returns why a run that can be native is faster as a scan; empty if it is not."""
    machine = here()
    steps, *batch_shape = jax.tree.leaves(xs)[0].shape[: 1 + axes]
    forward = step_of(run, *specs_of(consts, carry, xs, axes)).forward
    return machine.slower(traced(machine, forward), steps, math.prod(batch_shape))


def run_as_one(run: Run, consts: PyTree, carry: PyTree, xs: PyTree, axes: int) -> tuple[PyTree, PyTree]:
    """Runs over all steps of `axes` batch axes as one operation: `(carry, ys [T, *batch, ...])`; T is at least 1."""
    batch_shape = jax.tree.leaves(xs)[0].shape[1 : 1 + axes]
    tree, specs = specs_of(consts, carry, xs, axes)
    flat = [
        *jax.tree.leaves(consts),
        *(a.reshape(-1, *a.shape[axes:]) for a in jax.tree.leaves(carry)),
        *(a.reshape(len(a), -1, *a.shape[1 + axes :]) for a in jax.tree.leaves(xs)),
    ]
    found = _operation.bind(*flat, call=_Call("forward", run, tree, specs, (False,) * len(flat)))
    n = len(jax.tree.leaves(carry))
    found = [
        *(a.reshape(*batch_shape, *a.shape[1:]) for a in found[:n]),
        *(a.reshape(len(a), *batch_shape, *a.shape[2:]) for a in found[n:]),
    ]
    return jax.tree.unflatten(step_of(run, tree, specs).results, found)


# The primitive


@dataclass(frozen=True)
class _Call:
    """One of the four kinds of a run, and what it is about."""

    kind: Literal["forward", "keep", "tangent", "cotangent"]
    run: Run
    tree: Any
    specs: tuple[Spec, ...]
    active: tuple[bool, ...]  # leaves of the arguments with tangents; all real leaves of the carry
    dys: tuple[bool, ...] = ()  # real leaves of `ys` with cotangents

    @property
    def row(self) -> Step:
        return step_of(self.run, self.tree, self.specs)

    @property
    def derivative(self) -> Derivative:
        return derivative_of(self.run, self.tree, self.specs, self.active)

    def arguments(self) -> list[Leaves]:
        """Groups of what the call takes, at one step of one row, each of constants, carries or inputs by turns."""
        row = self.row
        groups = [row.consts, row.carry, row.xs]
        if self.kind in ("tangent", "cotangent"):
            groups += [[], [], self.derivative.kept]
        if self.kind == "tangent":
            groups += self._moved()
        if self.kind == "cotangent":
            groups += [[], reals(row.carry), pick(reals(row.ys), self.dys)]
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
        return [pick(row.consts, d.consts), pick(row.carry, d.carry), pick(row.xs, d.xs)]

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
            new, ys = whole(put(consts, d.consts, dconsts), put(carry, d.carry, dcarry), put(xs, d.xs, dxs))
            return reals(new), reals(ys)

        point = pick(consts, d.consts), pick(carry, d.carry), pick(xs, d.xs)
        if self.kind == "tangent":
            return jax.tree.leaves(jax.jvp(moving, point, tuple(rest[3:]))[1])
        (_, ys), pull = jax.vjp(moving, *point)
        _, dcarry, dys = rest[3:]
        return jax.tree.leaves(pull((dcarry, put([jnp.zeros_like(y) for y in ys], self.dys, dys))))

    def function(self, machine: Machine) -> RowFunction:
        """What a kernel does for one row in one step."""
        if self.kind == "forward":
            return self.row.forward
        if self.kind == "cotangent":
            return self.derivative.cotangent(self.dys, machine.sums)
        return self.derivative.keep if self.kind == "keep" else self.derivative.tangent

    def refusal(self, machine: Machine, steps: int, batch: int) -> str:
        """Returns why the machine has no kernel for the call, empty if it has."""
        try:
            return machine.fits(traced(machine, self.function(machine)), steps, batch)
        except machine.Unsupported as error:
            return str(error)

    def kernel(self, machine: Machine, *args: Any) -> Leaves:
        """The call by a kernel."""
        consts, carry, xs, *rest = self.groups(args)
        row, reverse = self.row, self.run.reverse
        run = functools.partial(machine.run, traced(machine, self.function(machine)))
        if self.kind in ("forward", "keep"):
            return jax.tree.leaves(run(row.ahead(consts), carry, xs, reverse=reverse))
        d = self.derivative

        def ahead(moved: Leaves) -> tuple[Leaves, Leaves]:
            given = row.ahead(put(consts, d.consts, moved))
            return pick(given, d.given), given

        _, _, kept, dconsts, dcarry, last = rest
        fixed = pick(carry, row.fixed)
        moved = pick(consts, d.consts)
        # Back in time, the loops of the CPU find the states before a step where they lie.
        shifts = self.kind == "cotangent" and machine is native
        shift = native.Shifted if shifts else functools.partial(states_before, reverse=reverse)
        count = sum(d.states)
        before = [shift(f, k) for f, k in zip(pick(carry, d.states), kept[:count], strict=True)]
        known = [*before, *kept[count:]]
        at = known, xs, last
        if self.kind == "tangent":
            _, dgiven, given = jax.jvp(ahead, (moved,), (dconsts,), has_aux=True)
            (dcarry, _), dys, _ = run((given, dgiven), (dcarry, fixed), at, reverse=reverse)
            return [*dcarry, *dys]
        _, pull, given = jax.vjp(ahead, moved, has_aux=True)
        (dcarry, _), found, dgiven = run(given, (dcarry, fixed), at, reverse=not reverse)
        dgiven, dxs = (dgiven, found) if machine.sums else d.pulled(self.dys, given, fixed, known, xs, found, last)
        return [*pull(dgiven)[0], *dcarry, *dxs]


_operation = new_primitive("run")


@functools.partial(jax.jit, static_argnames="call")
def _eager(*args: Any, call: _Call) -> Leaves:
    return _operation.bind(*args, call=call)


@_operation.def_abstract_eval
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
        results = _operation.bind(*primals, call=keep)
        ys = results[: len(call.row.new) + len(call.row.ys)]
        linear = [ad.instantiate_zeros(t) for t in pick(tangents, active)]
        kept = results[len(ys) :]
        moved = iter(_operation.bind(*primals, *kept, *linear, call=replace(keep, kind="tangent")))
        return ys, [next(moved) if is_real(y) else _zero(y) for y in ys]
    if not any(moves[:n]) and call.kind != "keep":
        m = len(primals) - sum(len(g) for g in call.arguments()[6:])
        linear = [ad.instantiate_zeros(t) for t in tangents[m:]]
        return _operation.bind(*primals, call=call), _operation.bind(*primals[:m], *linear, call=call)
    # Nothing that is made of `kept` depends on it by these rules, so its tangents do not matter.
    moved = tuple(_full(p, t) for p, t in zip(primals, tangents, strict=True))
    if call.kind == "keep":
        results = _operation.bind(*primals, call=call)
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
        given = [ad.instantiate_zeros(ct) for ct in dcarry] + pick(dys, flags)
        found = _operation.bind(*known, *given, call=replace(call, kind="cotangent", dys=flags))
    else:
        moved = [ad.instantiate_zeros(ct) for ct in cts]
        found = _operation.bind(*known, *moved, call=replace(call, kind="tangent", dys=()))
        dcarry = found[: len(reals(call.row.new))]
        found = [*dcarry, *pick(found[len(dcarry) :], call.dys)]
    return [None] * n + [f if ad.is_undefined_primal(a) else None for f, a in zip(found, linear, strict=True)]


def _batch(args: Sequence[Any], dims: Sequence[int | None], *, call: _Call) -> tuple[Leaves, list[int]]:
    """More rows; where the constants have a batch axis, or their gradients, one call after the other."""
    axes, results = _leading(call.arguments()), _leading(call.results())
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    if 0 in results or any(axis == 0 and d is not None for axis, d in zip(axes, dims, strict=True)):
        batched = [d is not None for d in dims]
        moved = [jnp.moveaxis(a, d, 0) for a, d in zip(args, dims, strict=True) if d is not None]
        found = lax.map(lambda some: _operation.bind(*put(args, batched, some), call=call), moved)
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

    found = _operation.bind(*[more(*one) for one in zip(args, dims, axes, strict=True)], call=call)
    split = [f.reshape(*f.shape[: r - 1], size, -1, *f.shape[r:]) for f, r in zip(found, results, strict=True)]
    return split, [r - 1 for r in results]


def _lower(platform: str, ctx: Any, *args: Any, call: _Call) -> Any:
    """Lowers to a kernel, or to the reference where JAX lowers a run for which there is none.

    That is known only here where `vmap` has added rows, where the run is differentiated forward, and where JAX lowers
    for another machine than its own.
    """
    machine = MACHINES[platform]
    sizes = next(a.shape for a, axes in zip(ctx.avals_in, _leading(call.arguments()), strict=True) if axes == 2)
    # What is exported runs in processes that have not made the loops of the CPU.
    exported = platform == "cpu" and ctx.module_context.lowering_parameters.for_export
    reason = "" if exported else call.refusal(machine, *sizes[:2])
    if reason:
        warnings.warn(f"{call.run}: its {call.kind} run is a scan, not a native kernel: {reason}", stacklevel=2)
    way = call.reference if exported or reason else functools.partial(call.kernel, machine)
    return mlir.lower_fun(way, multiple_results=True)(ctx, *args)


_operation.def_impl(_eager)
ad.primitive_jvps[_operation] = _jvp
ad.primitive_transposes[_operation] = _transpose
batching.primitive_batchers[_operation] = _batch
mlir.register_lowering(_operation, mlir.lower_fun(lambda *args, call: call.reference(*args), multiple_results=True))
for _platform in MACHINES:
    mlir.register_lowering(_operation, functools.partial(_lower, _platform), platform=_platform)
