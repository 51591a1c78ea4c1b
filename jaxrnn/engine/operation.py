"""A run over time as one operation, which a machine may carry out by a kernel of its own.

The derivative of a `forward` call is a `keep` and a `tangent`; `tangent` and `cotangent` are each other's transposes;
the derivatives of all but `forward` are `Tangents`. All calls (`calls.py`) are one primitive. On the CPU and on a TPU
each is a kernel. Everywhere else, and for transposes and derivatives of `Tangents`, it is the reference.
"""

import functools
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import ad, batching, mlir, xla
from jax.sharding import NamedSharding, PartitionSpec

from jaxrnn.engine.calls import Call, Tangents, leading, refusal
from jaxrnn.engine.machines import MACHINES, Machine, here, traced
from jaxrnn.engine.meshes import Spread, without_mesh
from jaxrnn.engine.parts import NoRule
from jaxrnn.engine.recurrence import is_real, reals
from jaxrnn.engine.rows import Leaves, Run, Spec, Untraceable, mixed, pick, put, specs_of, step_of
from jaxrnn.jaxprs import new_primitive
from jaxrnn.typing import Array, PyTree

__all__ = ["obstacle", "run_as_one", "slower"]


def obstacle(run: Run, consts: PyTree, carry: PyTree, xs: PyTree, batch_shape: tuple[int, ...]) -> str:
    """Returns why a run, and its gradient, cannot be native kernels; empty if they can.

    `batch_shape` is that of a device, the arrays may be those of all.
    """
    machine = here()
    if reason := machine.obstacle():
        return reason
    steps = jax.tree.leaves(xs)[0].shape[0]
    if not all(isinstance(n, int) for n in (steps, *batch_shape)):
        return "a symbolic number of steps or rows"
    specs = specs_of(consts, carry, xs, len(batch_shape))
    with without_mesh():
        return _unsupported(machine, run, *specs, steps, math.prod(batch_shape))


@functools.lru_cache(maxsize=512)
def _unsupported(machine: Machine, run: Run, tree: Any, specs: tuple[Spec, ...], steps: int, batch: int) -> str:
    forward = Call("forward", run, tree, specs, (False,) * len(specs))
    keep = replace(forward, kind="keep", active=tuple(map(is_real, specs)))
    try:
        if reason := mixed(run, tree, specs):
            return reason
        back = replace(keep, kind="cotangent", dys=(True,) * len(reals(forward.row.ys)))
        return next(filter(None, (refusal(call, machine, steps, batch) for call in (forward, keep, back))), "")
    except NoRule as error:
        return str(error)
    except Untraceable as error:  # what is wrong with a step for the scan, too, is raised there
        return f"its step, or the derivative of it, cannot be traced for one row, without batch axes ({error})"


def slower(run: Run, consts: PyTree, carry: PyTree, xs: PyTree, batch_shape: tuple[int, ...]) -> str:
    """Returns why a run that can be native is faster as a scan; empty if it is not. The arguments of `obstacle`."""
    machine, steps = here(), jax.tree.leaves(xs)[0].shape[0]
    forward = step_of(run, *specs_of(consts, carry, xs, len(batch_shape))).forward
    return machine.slower(traced(machine, forward), steps, math.prod(batch_shape))


def run_as_one(
    run: Run, consts: PyTree, carry: PyTree, xs: PyTree, axes: int, spread: Spread | None
) -> tuple[PyTree, PyTree]:
    """Runs over all steps of `axes` batch axes as one operation: `(carry, ys [T, *batch, ...])`; T is at least 1."""
    batch_shape = jax.tree.leaves(xs)[0].shape[1 : 1 + axes]
    tree, specs = specs_of(consts, carry, xs, axes)
    flat = [
        *jax.tree.leaves(consts),
        *(a.reshape(-1, *a.shape[axes:]) for a in jax.tree.leaves(carry)),
        *(a.reshape(len(a), -1, *a.shape[1 + axes :]) for a in jax.tree.leaves(xs)),
    ]
    found = _operation.bind(*flat, call=Call("forward", run, tree, specs, (False,) * len(flat), spread=spread))
    n = len(jax.tree.leaves(carry))
    found = [
        *(a.reshape(*batch_shape, *a.shape[1:]) for a in found[:n]),
        *(a.reshape(len(a), *batch_shape, *a.shape[2:]) for a in found[n:]),
    ]
    return jax.tree.unflatten(step_of(run, tree, specs).results, found)


# The primitive

_operation = new_primitive("run")


@_operation.def_abstract_eval
def _abstract(*args: Any, call: Call | Tangents) -> Leaves:
    sizes = next(a.shape[:2] for a, axes in zip(args, leading(*call.arguments()), strict=True) if axes == 2)
    results = call.results()
    leaves = [leaf for part in results for leaf in part]
    # All vary over the same axes of a `jax.shard_map` (`alike`). The mesh is a part of the type.
    like = next((a for a in args if not a.sharding.mesh.empty), args[0])
    sharding = NamedSharding(like.sharding.mesh, PartitionSpec())
    return [
        like.update(shape=(*sizes[2 - axes :], *leaf.shape), dtype=leaf.dtype, weak_type=False, sharding=sharding)
        for leaf, axes in zip(leaves, leading(results), strict=True)
    ]


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, call: Call | Tangents) -> tuple[Leaves, Leaves]:
    moves = tuple(type(t) is not ad.Zero and is_real(t) for t in tangents)
    m = len(primals) - call.linear
    if call.linear and not any(moves[:m]):
        moving = [ad.instantiate_zeros(t) for t in tangents[m:]]
        return _operation.bind(*primals, call=call), _operation.bind(*primals[:m], *moving, call=call)
    if isinstance(call, Tangents):
        return jax.jvp(call.reference, tuple(primals), tuple(map(_full, primals, tangents)))
    if call.kind == "forward":
        consts, carry, _ = call.row.sizes
        active = tuple(
            is_real(spec) if consts <= i < consts + carry else flag
            for i, (spec, flag) in enumerate(zip(call.specs, moves, strict=True))
        )
        keep = replace(call, kind="keep", active=active)
        found = _operation.bind(*primals, call=keep)
        n = len(call.row.new) + len(call.row.ys)
        results, kept = found[:n], found[n:]
        moving = [ad.instantiate_zeros(t) for t in pick(tangents, active)]
        tangents = _operation.bind(*primals, *kept, *moving, call=replace(keep, kind="tangent"))
    else:
        results = _operation.bind(*primals, call=call)
        moving = [ad.instantiate_zeros(t) for t in pick(tangents, moves)]
        tangents = _operation.bind(*primals, *moving, call=Tangents(call, moves))
    source = iter(tangents)
    return results, [next(source) if is_real(r) else ad.Zero(jax.typeof(r).to_tangent_aval()) for r in results]


def _full(primal: Any, tangent: Any) -> Any:
    if not is_real(primal):
        return np.zeros(primal.shape, jax.dtypes.float0)
    return ad.instantiate_zeros(tangent)


def _transpose(cts: Sequence[Any], *args: Any, call: Call | Tangents) -> Leaves:
    n = len(args) - call.linear
    known, linear = args[:n], args[n:]
    if isinstance(call, Tangents):
        avals = [a.aval if ad.is_undefined_primal(a) else jax.typeof(a) for a in linear]
        found = jax.linear_transpose(functools.partial(call.reference, *known), *avals)(
            [ad.instantiate_zeros(ct) for ct in cts]
        )
    elif call.kind == "tangent":
        dcarry, dys = cts[: len(reals(call.row.new))], cts[len(reals(call.row.new)) :]
        flags = tuple(type(ct) is not ad.Zero for ct in dys)
        given = [ad.instantiate_zeros(ct) for ct in dcarry] + pick(dys, flags)
        consts, carry = (sum(flags) for flags in (call.derivative.consts, call.derivative.carry))
        initial = any(map(ad.is_undefined_primal, linear[consts : consts + carry]))
        found = _operation.bind(*known, *given, call=replace(call, kind="cotangent", dys=flags, initial=initial))
    else:
        given = [ad.instantiate_zeros(ct) for ct in cts]
        found = _operation.bind(*known, *given, call=replace(call, kind="tangent", dys=(), initial=True))
        dcarry = found[: len(reals(call.row.new))]
        found = [*dcarry, *pick(found[len(dcarry) :], call.dys)]
    return [None] * n + [f if ad.is_undefined_primal(a) else None for f, a in zip(found, linear, strict=True)]


def _batch(args: Sequence[Any], dims: Sequence[int | None], *, call: Call | Tangents) -> tuple[Leaves, list[int]]:
    """More rows; where the constants have a batch axis, or their gradients, one call after the other.

    With an Auto axis it is unknown which of the two axes is spread over devices.
    """
    if call.spread:
        _warn(call, "`jax.vmap` makes more rows of it, on a mesh with an Auto axis")
        found = jax.vmap(call.reference, [d if d is None else int(d) for d in dims])(*args)
        return found, [0] * len(found)
    axes, results = leading(*call.arguments()), leading(call.results())
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    if 0 in results or any(axis == 0 and d is not None for axis, d in zip(axes, dims, strict=True)):
        batched = [d is not None for d in dims]
        stacked = [jnp.moveaxis(a, d, 0) for a, d in zip(args, dims, strict=True) if d is not None]
        found = lax.map(lambda some: _operation.bind(*put(args, batched, some), call=call), stacked)
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


def _lower(platform: str, ctx: Any, *args: Any, call: Call | Tangents) -> Any:
    """Lowers to a kernel, or to the reference where JAX lowers a run for which there is none.

    That is known only here where `vmap` has added rows, where the run is differentiated forward, where JAX lowers for
    another machine than its own, and where it divides a program among devices though no array of the run says so.
    """
    machine, divided = MACHINES[platform], _divided(ctx.module_context.axis_context)
    # An array that was on a mesh keeps the type when it is put on a single device.
    spread = call.spread if divided else None
    axes = leading(*call.arguments()), leading(call.results())
    steps, batch = next(a.shape[:2] for a, count in zip(ctx.avals_in, axes[0], strict=True) if count == 2)
    # What is exported runs in processes that have not made the loops of the CPU.
    exported = platform == "cpu" and ctx.module_context.lowering_parameters.for_export
    reason = ""
    if not exported:
        reason = refusal(call, machine, steps, batch // (spread.devices if spread else 1))
        if divided and not spread:
            reason = "XLA divides it among devices, and no array of it is on a mesh"
    if reason:
        _warn(call, reason)
    way = call.reference if exported or reason else functools.partial(call.kernel, machine)
    if spread and not (exported or reason):
        way = spread.map(way, *axes)
    # Each device has what it has: a kernel knows neither meshes nor what varies.
    plain = [jax.core.ShapedArray(a.shape, a.dtype) for a in ctx.avals_in]
    with without_mesh():
        return mlir.lower_fun(way, multiple_results=True)(ctx.replace(avals_in=plain), *args)


def _warn(call: Call | Tangents, reason: str) -> None:
    warnings.warn(f"{call.run}: its {call.kind} run is a scan, not a native kernel: {reason}", stacklevel=3)


def _divided(context: Any) -> bool:
    """Returns whether XLA divides a program that is lowered in this context among devices."""
    if isinstance(context, mlir.SPMDAxisContext):
        return context.manual_axes | set(context.mesh.manual_axes) != set(context.mesh.axis_names)
    return isinstance(context, mlir.ShardingContext) and context.num_devices > 1


# Not a jitted function of our own: JAX would run it again without `jit` under `jax.debug_nans` and `jax.disable_jit`.
_operation.def_impl(functools.partial(xla.apply_primitive, _operation))
ad.primitive_jvps[_operation] = _jvp
ad.primitive_transposes[_operation] = _transpose
batching.primitive_batchers[_operation] = _batch
mlir.register_lowering(_operation, mlir.lower_fun(lambda *args, call: call.reference(*args), multiple_results=True))
for _platform in MACHINES:
    mlir.register_lowering(_operation, functools.partial(_lower, _platform), platform=_platform)
