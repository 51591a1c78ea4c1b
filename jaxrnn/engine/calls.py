"""What can be asked of a run over time, and two ways to do it: by a kernel, and by the engine's own loop.

    forward     (consts, carry, xs) -> (carry, ys)
    keep        the same, and `kept`: what derivatives need to know of every step
    tangent     (consts, carry, xs, kept; dconsts, dcarry, dxs) -> (dcarry, dys)     linear in what comes after the ;
    cotangent   (consts, carry, xs, kept; dcarry, dys) -> (dconsts, dcarry, dxs)     its transpose

and, for derivatives of derivatives, the `Tangents` of each, linear in those of its arguments. A kernel is generated
from what one row does in one step; one for tangents from the derivative of that, with the state and its tangent side by
side. The reference is the engine's loop and JAX's derivatives of it, which read nothing that was kept; that of `keep`
scans the row function, which alone knows what is kept.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxrnn import native
from jaxrnn.engine.machines import Machine, traced
from jaxrnn.engine.meshes import Spread
from jaxrnn.engine.recurrence import is_real, reals, states_before, tangents_of
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
    step_of,
    tangent_row,
)
from jaxrnn.typing import PyTree

__all__ = ["Call", "Tangents", "leading", "refusal"]


class Group(NamedTuple):
    """Leaves by the number of their leading axes, of rows and of time and rows."""

    consts: Leaves  # [...]
    carry: Leaves  # [B, ...]
    over_time: Leaves  # [T, B, ...]


@dataclass(frozen=True)
class Call:
    """One of the four kinds of a run, and what it is about."""

    kind: Literal["forward", "keep", "tangent", "cotangent"]
    run: Run
    tree: Any
    specs: tuple[Spec, ...]
    active: tuple[bool, ...]  # leaves of the arguments with tangents; all real leaves of the carry
    dys: tuple[bool, ...] = ()  # real leaves of `ys` with cotangents
    initial: bool = True  # whether cotangents of the carry are asked for
    spread: Spread | None = None  # over the devices of a mesh with an Auto axis

    @property
    def row(self) -> Step:
        """One step of one row."""
        return step_of(self.run, self.tree, self.specs)

    @property
    def derivative(self) -> Derivative:
        """Its derivative with respect to the active arguments."""
        return derivative_of(self.run, self.tree, self.specs, self.active)

    def arguments(self) -> list[Group]:
        """What the call takes, at one step of one row: of the run, what was kept of it, what it is linear in."""
        row = self.row
        groups = [Group(row.consts, row.carry, row.xs)]
        if self.kind in ("tangent", "cotangent"):
            groups.append(Group([], [], self.derivative.kept))
        if self.kind == "tangent":
            groups.append(self._active)
        if self.kind == "cotangent":
            groups.append(Group([], reals(row.carry), pick(reals(row.ys), self.dys)))
        return groups

    def results(self) -> Group:
        """What it gives."""
        row = self.row
        if self.kind == "cotangent":
            return self._active
        if self.kind == "tangent":
            return Group([], reals(row.new), reals(row.ys))
        return Group([], row.new, [*row.ys, *(self.derivative.kept if self.kind == "keep" else [])])

    @property
    def _active(self) -> Group:
        row, d = self.row, self.derivative
        return Group(pick(row.consts, d.consts), pick(row.carry, d.carry), pick(row.xs, d.xs))

    @property
    def linear(self) -> int:
        """How many arguments, the last ones, it is linear in."""
        return sum(len(part) for group in self.arguments()[2:] for part in group)

    def groups(self, args: Sequence[Any]) -> list[Group]:
        """Divides the arguments."""
        source = iter(args)
        return [Group(*([next(source) for _ in part] for part in group)) for group in self.arguments()]

    def reference(self, *args: Any) -> Leaves:
        """Runs the call by the engine's own loop."""
        (consts, carry, xs), *rest = self.groups(args)
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
            return jax.tree.leaves(jax.jvp(moving, point, tuple(rest[1]))[1])

        def flagged(*point: Leaves) -> tuple[Leaves, Leaves]:
            new, ys = moving(*point)
            return new, pick(ys, self.dys)

        _, pull = jax.vjp(flagged, *point)
        return jax.tree.leaves(pull(tuple(rest[1][1:])))

    def function(self, machine: Machine) -> RowFunction:
        """Returns what a kernel does for one row in one step."""
        if self.kind == "forward":
            return self.row.forward
        if self.kind == "cotangent":
            return self.derivative.cotangent(self.dys, machine.sums)
        return self.derivative.keep if self.kind == "keep" else self.derivative.tangent

    def kernel(self, machine: Machine, *args: Any) -> Leaves:
        """Runs the call by a kernel."""
        (consts, carry, xs), *rest = self.groups(args)
        run = functools.partial(_run, machine, self.function(machine), self.initial)
        if self.kind in ("forward", "keep"):
            return jax.tree.leaves(run(self.run.reverse, self.row.ahead(consts), carry, xs))
        kept, moved = rest
        known, fixed = self._known(machine, carry, kept.over_time), pick(carry, self.row.fixed)
        if self.kind == "tangent":
            return self._tangent(run, consts, fixed, known, xs, moved)
        return self._cotangent(run, machine.sums, consts, fixed, known, xs, moved)

    def _known(self, machine: Machine, carry: Leaves, kept: Leaves) -> Leaves:
        """The states before every step, and the coefficients that were kept."""
        shifts = self.kind == "cotangent" and machine.shifts
        shift = native.Shifted if shifts else functools.partial(states_before, reverse=self.run.reverse)
        states = self.derivative.states
        count = sum(states)
        return [*(shift(f, k) for f, k in zip(pick(carry, states), kept[:count], strict=True)), *kept[count:]]

    def _ahead(self, consts: Leaves, active: Leaves) -> tuple[Leaves, Leaves]:
        """What the steps read of the constants, of which `active` have tangents: what depends on these, and all."""
        given = self.row.ahead(put(consts, self.derivative.consts, active))
        return pick(given, self.derivative.given), given

    def _tangent(self, run: Any, consts: Leaves, fixed: Leaves, known: Leaves, xs: Leaves, moved: Group) -> Leaves:
        dconsts, dcarry, dxs = moved
        ahead, active = functools.partial(self._ahead, consts), pick(consts, self.derivative.consts)
        _, dgiven, given = jax.jvp(ahead, (active,), (dconsts,), has_aux=True)
        (dcarry, _), dys, _ = run(self.run.reverse, (given, dgiven), (dcarry, fixed), (known, xs, dxs))
        return [*dcarry, *dys]

    def _cotangent(
        self, run: Any, sums: bool, consts: Leaves, fixed: Leaves, known: Leaves, xs: Leaves, moved: Group
    ) -> Leaves:
        d, (_, dcarry, dys) = self.derivative, moved
        reached, active = d.moved(self.dys), pick(consts, d.consts)

        def ahead(active: Leaves) -> tuple[Leaves, Leaves]:
            moving, given = self._ahead(consts, active)
            return pick(moving, reached), given

        _, pull, given = jax.vjp(ahead, active, has_aux=True)
        (dcarry, _), found, dgiven = run(not self.run.reverse, given, (dcarry, fixed), (known, xs, dys))
        # A machine without sums gives the cotangents of all new carries, from which both are made.
        dgiven, dxs = (dgiven, found) if sums else d.pulled(self.dys, given, fixed, known, xs, found, dys)
        return [*pull(pick(dgiven, reached))[0], *dcarry, *dxs]


@dataclass(frozen=True)
class Tangents:
    """The tangents of the real results of a call, linear in those of its flagged arguments."""

    of: Call
    moves: tuple[bool, ...]

    @property
    def kind(self) -> str:
        """What messages call it."""
        return f"tangents of {self.of.kind}"

    @property
    def run(self) -> Run:
        """What runs over time."""
        return self.of.run

    @property
    def spread(self) -> Spread | None:
        """Over which devices it is spread."""
        return self.of.spread

    @property
    def linear(self) -> int:
        """How many arguments, the last ones, it is linear in."""
        return sum(self.moves)

    def arguments(self) -> list[Group]:
        """What the call takes: what that call takes, and tangents."""
        groups, moves = self.of.arguments(), iter(self.moves)
        return [*groups, *(Group(*([leaf for leaf in part if next(moves)] for part in group)) for group in groups)]

    def results(self) -> Group:
        """What it gives."""
        return Group(*map(reals, self.of.results()))

    def reference(self, *args: Any) -> Leaves:
        """Runs the call by the engine's own loop."""
        return self._along(self.of.reference, *args)

    def function(self, machine: Machine) -> RowFunction:
        """Returns what a kernel does for one row in one step where all that can moves."""
        row = self.of.function(machine)
        return tangent_row(row, tuple(map(is_real, jax.tree.leaves((row.consts, row.carry, row.xs)))))

    def kernel(self, machine: Machine, *args: Any) -> Leaves:
        """Runs the call by a kernel."""
        return self._along(functools.partial(self.of.kernel, machine), *args)

    def _along(self, fun: Any, *args: Any) -> Leaves:
        n = len(self.moves)
        still, tangents = args[:n], args[n:]

        def moving(*point: Any) -> Leaves:
            return reals(fun(*put(still, self.moves, point)))

        return jax.jvp(moving, tuple(pick(still, self.moves)), tuple(tangents))[1]


def leading(*groups: Group) -> list[int]:
    """Counts the axes of time and rows of each leaf."""
    return [axes for group in groups for axes, part in enumerate(group) for _ in part]


def refusal(call: Call | Tangents, machine: Machine, steps: int, batch: int) -> str:
    """Returns why the machine has no kernel for the call, empty if it has."""
    try:
        return machine.fits(traced(machine, call.function(machine)), steps, batch)
    except machine.Unsupported as error:
        return str(error)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2, 3))
def _run(
    machine: Machine, row: RowFunction, final: bool, reverse: bool, consts: PyTree, carry: PyTree, xs: PyTree
) -> Any:
    """A kernel, whose tangents are those of a kernel."""
    return machine.run(traced(machine, row), consts, carry, xs, reverse=reverse, final=final)


@functools.partial(_run.defjvp, symbolic_zeros=True)
def _run_jvp(machine: Machine, row: RowFunction, final: bool, reverse: bool, primals: Any, tangents: Any) -> Any:
    flags, moving = [], []
    for part, (spec, given) in enumerate(zip((row.consts, row.carry, row.xs), tangents, strict=True)):
        ways = jax.tree.leaves(given, is_leaf=lambda way: isinstance(way, native.Shifted))
        # All of a carry moves once a part of it does.
        moves = [
            is_real(a) and (part == 1 or _has_tangent(way)) for a, way in zip(jax.tree.leaves(spec), ways, strict=True)
        ]
        flags += moves
        moving.append(jax.tree.map(_instantiated, pick(ways, moves)))
    pairs = zip(primals, moving, strict=True)
    (_, dcarry), dys, dsums = _run(machine, tangent_row(row, tuple(flags)), final, reverse, *pairs)
    results = _run(machine, row, final, reverse, *primals)
    return results, tangents_of(results, dcarry, dys, dsums)


def _has_tangent(tangents: PyTree) -> bool:
    return not all(isinstance(t, SymbolicZero) for t in jax.tree.leaves(tangents))


def _instantiated(tangent: Any) -> Any:
    return jnp.zeros(tangent.shape, tangent.dtype) if isinstance(tangent, SymbolicZero) else tangent
