"""Which rows of a run each device of a mesh has, as far as that is known when the run is traced.

    no mesh                     all: the run is on one device, or XLA divides a program that does not say so
    inside of `jax.shard_map`   those it is given
    Explicit axes               those that the types of the arrays name; the run stands in a `jax.shard_map`
    Auto axes                   types say nothing: as many as any other, once the run is lowered

So a kernel is one of a device always. XLA cannot divide a kernel, and on a TPU it cannot be told how
(jax-ml/jax#38196).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec, reshard, use_abstract_mesh

from jaxrnn.typing import PyTree

__all__ = ["Placement", "Spread", "alike", "place", "without_mesh"]

Axes = str | tuple[str, ...] | None  # over which an axis of an array is spread


class Placement(NamedTuple):
    """How the rows of a run are spread over devices.

    Attributes:
        mesh: the devices; None: one, or those of a `jax.shard_map` around the run.
        rows: mesh axes of each batch axis.
        spread: how a kernel is spread when it is lowered; None: when the run is traced.
        obstacle: why there cannot be a kernel of each device; empty if there can.
    """

    mesh: Any = None
    rows: tuple[Axes, ...] = ()
    spread: "Spread | None" = None
    obstacle: str = ""

    def local(self, batch_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The batch axes of one device."""
        if self.mesh is None:
            return batch_shape
        counts = (math.prod(self.mesh.shape[name] for name in _names(axes)) for axes in self.rows)
        return tuple(n // count for n, count in zip(batch_shape, counts, strict=True))

    def map(self, fun: Callable[..., Any], consts: PyTree, carry: PyTree, xs: PyTree) -> Any:
        """Calls `fun(consts, carry, xs) -> (carry, ys)`, with Explicit axes on every device for its rows."""
        if self.mesh is None or self.spread:
            return fun(*alike((consts, carry, xs)))
        specs = PartitionSpec(), PartitionSpec(*self.rows), PartitionSpec(None, *self.rows)
        given = [
            jax.tree.map(lambda a, spec=spec: reshard(a, NamedSharding(self.mesh, spec)), part)
            for part, spec in zip((consts, carry, xs), specs, strict=True)
        ]
        mapped = jax.shard_map(lambda *given: fun(*alike(given)), mesh=self.mesh, in_specs=specs, out_specs=specs[1:])
        return mapped(*given)


class Spread(NamedTuple):
    """The Auto axes of a mesh over which the rows of a kernel are spread."""

    mesh: Any
    axes: tuple[str, ...]

    @property
    def devices(self) -> int:
        """How many there are."""
        return math.prod(self.mesh.shape[name] for name in self.axes)

    def map(self, fun: Callable[..., list[Any]], arguments: list[int], results: list[int]) -> Callable[..., list[Any]]:
        """Returns a function of leaves that runs on every device; what has no rows is added up over devices.

        Args:
            fun: the function of one device.
            arguments: how many axes of time and rows each argument has, the last one that of rows.
            results: the same for each result.
        """

        def local(*args: Any) -> list[Any]:
            return [a if axes else lax.psum(a, self.axes) for a, axes in zip(fun(*args), results, strict=True)]

        specs = PartitionSpec(), PartitionSpec(self.axes), PartitionSpec(None, self.axes)
        given, found = tuple(specs[axes] for axes in arguments), [specs[axes] for axes in results]
        return jax.shard_map(local, mesh=self.mesh, in_specs=given, out_specs=found, check_vma=False)


def _names(axes: Axes) -> tuple[str, ...]:
    return () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)


def place(consts: PyTree, carry: PyTree, xs: PyTree, batch_shape: tuple[int, ...]) -> Placement:
    """Returns how the rows of a run are spread, by the types of its arrays."""
    meshes = {jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves((consts, carry, xs))}
    meshes = {mesh for mesh in meshes if not mesh.empty}
    if len(meshes) > 1:
        return Placement(obstacle="its arrays are on several meshes")
    mesh = next(iter(meshes), None)
    if mesh is None or set(mesh.axis_types) == {AxisType.Manual}:
        return Placement()
    every = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    # An axis of length one spreads nothing. But within a `jax.shard_map` over some axes, XLA divides over all others.
    kinds = {name: kind for name, kind in every.items() if mesh.shape[name] > 1 or AxisType.Manual in every.values()}
    if len(set(kinds.values())) > 1:
        names = ", ".join(f"{name!r}: {kind.name}" for name, kind in kinds.items())
        return Placement(obstacle=f"the axes of its mesh are of several kinds ({names})")
    if AxisType.Explicit in (kinds or every).values():
        return _explicit(mesh, consts, carry, xs, len(batch_shape))
    if not kinds:
        return Placement()
    spread = Spread(mesh, tuple(kinds))
    if len(batch_shape) != 1 or batch_shape[0] % spread.devices:
        return Placement(obstacle=f"its batch axes {batch_shape} are not one that {spread.devices} devices divide")
    return Placement(mesh, (spread.axes,), spread)


def _explicit(mesh: Any, consts: PyTree, carry: PyTree, xs: PyTree, axes: int) -> Placement:
    """The specs of the types say all, but where `vmap` has taken an axis away."""
    seen: list[set[Axes]] = [set() for _ in range(axes)]
    for before, count, part in ((0, 0, consts), (0, axes, carry), (1, axes, xs)):
        for leaf in jax.tree.leaves(part):
            spec = jax.typeof(leaf).sharding.spec
            if any(axis is not None for axis in (*spec[:before], *spec[before + count :])):
                return Placement(obstacle=f"an array is spread by more than its rows: {jax.typeof(leaf)}")
            for axis, ways in zip(spec[before:], seen, strict=False):
                ways.add(axis)
    if any(len(ways - {None}) > 1 for ways in seen):
        return Placement(obstacle="its rows are spread in several ways")
    if _mapped_away(mesh):
        return Placement(obstacle="`jax.vmap` goes along an axis that is spread over devices")
    return Placement(mesh, tuple(next(iter(ways - {None}), None) for ways in seen))


def _mapped_away(mesh: Any) -> bool:
    """Whether `jax.vmap` goes along an axis of the mesh: `jax.shard_map` leaves that one as it is."""
    kinds: list[Any] = []

    def look(a: Any) -> Any:
        kinds.extend(jax.typeof(a).sharding.mesh.axis_types)
        return a

    spec = PartitionSpec()
    mapped = jax.shard_map(look, mesh=mesh, in_specs=spec, out_specs=spec)
    jax.eval_shape(mapped, jax.ShapeDtypeStruct((), jnp.float32))
    return AxisType.Explicit in kinds


def alike(tree: PyTree) -> PyTree:
    """Casts all leaves to vary over the axes of `jax.shard_map` that one of them varies over.

    Cotangents of what did not vary are then added up there, and not in every chunk.
    """
    axes = frozenset[str]().union(*(jax.typeof(leaf).mat.varying for leaf in jax.tree.leaves(tree)))

    def one(leaf: Any) -> Any:
        missing = tuple(sorted(axes - jax.typeof(leaf).mat.varying))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(one, tree)


def without_mesh() -> Any:
    """A context in which arrays are on no mesh: what one row does is the same on all."""
    return use_abstract_mesh(AbstractMesh((), ()))
