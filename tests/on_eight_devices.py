"""Programs on a mesh of eight devices of the CPU, against one device; `test_meshes.py` runs the first two forms.

python -m tests.on_eight_devices            prints, by name, the greatest error, collectives, kernels and loops, as JSON
python -m tests.on_eight_devices typical    a cell of every kind, each on one kind of mesh; stops at an error
python -m tests.on_eight_devices every      every cell of the registry, ten minutes on an idle core; stops at an error
"""

import collections
import functools
import json
import os
import re
import sys

if __name__ == "__main__":  # and not where doctests are looked for
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxrnn
from jaxrnn import sharding
from tests.registry import CELLS, FEW, NETWORKS, TYPICAL, example

COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
KINDS = ["auto", "explicit", "shard_map"]
TWO = "two axes"
DEVICES = 8
STEPS = jnp.arange(5 * DEVICES).reshape(5, DEVICES)
MASKS = jnp.arange(DEVICES) % 6, STEPS % 7 == 3  # lengths, resets

COMPILED = [
    jaxrnn.LSTM(3, 4),
    jaxrnn.LRU(3, 4, scan="associative"),
    jaxrnn.Stack((jaxrnn.Embedding(5, 3), jaxrnn.LayerNormLSTM(3, 4))),
]
# Of these only the types are looked at: what was wrong with them on meshes was refused by JAX.
TRACED = [
    jaxrnn.Bidirectional(jaxrnn.LearnedState(jaxrnn.GRU(3, 4))),
    jaxrnn.Stack((jaxrnn.Zoneout(jaxrnn.LSTM(3, 4), 0.5), jaxrnn.MinGRU(4, 4)), dropout=0.5),
    jaxrnn.Window(3, 2),
    jaxrnn.BatchNormLSTM(3, 4, steps=4),
    jaxrnn.DeltaNet(3, 8, heads=2),
    jaxrnn.MDRNN((4, 3), 2),
]


def collectives(text):
    """The collectives of a compiled program outside of its loops, and in their bodies."""
    parts = re.split(r"\n(?=%|ENTRY)", text)
    bodies = {m.group(1): part for part in parts if (m := re.match(r"(?:ENTRY )?%?([\w.\-]+) ", part))}
    inside = set()

    def reach(name):
        if name in bodies and name not in inside:
            inside.add(name)
            for other in re.findall(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)", bodies[name]):
                reach(other)

    for name in re.findall(r"body=%?([\w.\-]+)", text):
        reach(name)

    def count(names):
        return dict(
            collections.Counter(k for n in names for k in re.findall(rf" ({COLLECTIVES})(?:-start)?\(", bodies[n]))
        )

    return count(bodies.keys() - inside), count(inside)


def compare(fun, args, expected):
    """Runs a program: how far it is from what is expected, relative to the greatest value, and what it is made of."""
    compiled = jax.jit(fun).lower(*args).compile()
    found = compiled(*args)
    error = 0.0
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(jax.device_get(a)), np.asarray(jax.device_get(b))
        error = max(error, float(np.max(np.abs(a - b), initial=0) / (1 + np.max(np.abs(b), initial=0))))
    text = compiled.as_text()
    outside, inside = collectives(text)
    kernels, loops = text.count('custom_call_target="jaxrnn'), text.count(" while(")
    return {"error": error, "outside": outside, "inside": inside, "kernels": kernels, "loops": loops}


def mesh_of(kind):
    """The devices; of two Auto axes, rows are spread over one alone before a run."""
    axes = {"data": 2, "model": 4} if kind == TWO else {"data": DEVICES}
    axis_type = AxisType.Explicit if kind == "explicit" else AxisType.Auto
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(axis_type,) * len(axes))


def put(mesh, args, specs):
    return [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(args, specs, strict=True)]


def native(cells):
    """Those of the cells that have a kernel."""

    def path(cell):
        return {choice.path for choice in jaxrnn.explain(cell, steps=64, batch=DEVICES, dtype=jnp.float64)}

    return [cell for cell in cells if path(cell) == {"native"}]


def real_sum(tree):
    return sum(jnp.sum(jnp.abs(leaf)).astype(jnp.float64) for leaf in jax.tree.leaves(tree))


def training(cells, kinds, *, compiled=True, path="scan", solver=None):
    """Value and gradient of a run of each cell without a state, with lengths and resets, in one program a mesh."""
    given = [example(cell, batch=(DEVICES,), dtype=jnp.float64)[:2] for cell in cells]
    args = [p for p, _ in given], [x for _, x in given], *MASKS
    specs = P(), P(None, "data"), P("data"), P(None, "data")

    def loss(params, inputs, lengths, resets):
        runs = (
            jaxrnn.unroll(cell, p, xs, lengths=lengths, resets=resets, path=path, solver=solver)
            for cell, p, xs in zip(cells, params, inputs, strict=True)
        )
        return sum(map(real_sum, runs))

    expected = jax.jit(jax.value_and_grad(loss))(*args) if compiled else None
    found = {}
    for kind in kinds:
        with jax.set_mesh(mesh := mesh_of(kind)):
            if kind == "shard_map":

                def spread(*args):
                    return jax.lax.psum(loss(*args), "data")

                fun, at = jax.shard_map(spread, mesh=mesh, in_specs=specs, out_specs=P()), args
            else:
                fun, at = loss, put(mesh, args, specs)
            fun = jax.value_and_grad(fun)
            name = "training by Newton" if solver else "native training" if path == "native" else "training"
            found[f"{name}, {kind}"] = compare(fun, at, expected) if compiled else jax.jit(fun).trace(*at) and None
    return found


def derivatives(kinds):
    """Gradients chunk by chunk, tangents, and tangents of gradients, natively: on one device of many, on all."""
    cell = jaxrnn.Elman(3, 4)
    args = example(cell, steps=16, batch=(DEVICES,), dtype=jnp.float64)
    specs = P(), P(None, "data"), P("data")

    def everything(*args, path="native", save="boundaries", over=lambda x: x):
        def loss(save):
            return lambda *args: over(jnp.sum(jnp.sin(jaxrnn.unroll(cell, *args, path=path, save=save, chunk=8)[1])))

        moves, slopes = jax.tree.map(jnp.cos, args), jax.grad(loss("auto"), (0, 1, 2))
        moved = [jax.jvp(fun, args, moves) for fun in (functools.partial(jaxrnn.unroll, cell, path=path), slopes)]
        return jax.grad(loss(save), (0, 1, 2))(*args), moved

    expected = jax.jit(functools.partial(everything, path="scan"))(*args)
    found = {"derivatives, one device": compare(everything, args, expected)}
    # Arrays that were on a mesh keep the type that they had there.
    given = jax.device_put(put(mesh_of("auto"), args, specs), jax.devices()[0])
    found["back on one device"] = compare(functools.partial(everything, save="auto"), given, expected)
    for kind in kinds:
        with jax.set_mesh(mesh := mesh_of(kind)):
            fun, at = everything, put(mesh, args, specs)
            if kind == "auto":  # every chunk would add up gradients, so there is no kernel for one
                fun = functools.partial(everything, save="auto")
            if kind == "shard_map":
                fun = functools.partial(everything, over=functools.partial(jax.lax.psum, axis_name="data"))
                ran, moved = (P("data"), P(None, "data")), (specs, specs)
                fun = jax.shard_map(fun, mesh=mesh, in_specs=specs, out_specs=(specs, [(ran, ran), moved]))
            found[f"derivatives, {kind}"] = compare(fun, at, expected)
    return found


def recipes(of_units, of_time, reverse=False, steps=8):
    """`jaxrnn.sharding` against one device: outputs, final state and the gradients of all that is given."""
    found = {}
    flags = jnp.arange(steps * 4).reshape(steps, 4) % 7 == 3
    masks = {"lengths": jnp.array([8, 3, 0, 5]), "resets": flags, "reverse": reverse}

    def check(name, cell, run, given, params, join=lambda params: params):
        def everything(unroll, join, params, xs, state):
            def loss(params, xs, state):
                found = unroll(params, xs, state, **masks)
                return real_sum(found), found

            (dparams, *more), found = jax.grad(loss, (0, 1, 2), has_aux=True)(params, xs, state)
            return found, join(dparams), more

        one_device = functools.partial(everything, functools.partial(jaxrnn.unroll, cell), lambda params: params)
        spread = functools.partial(everything, run, join)
        found[name] = compare(spread, (params, *given[1:]), jax.jit(one_device)(*given))

    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    on_axes = {"mesh": mesh, "axis": "model", "batch": "data"}
    for cell in of_units:
        given = example(cell, steps=steps, batch=(4,), dtype=jnp.float64)
        params = sharding.split_units(cell, given[0], mesh, "model")
        join = functools.partial(sharding.join_units, cell)
        run = functools.partial(sharding.unroll_units, cell, **on_axes)
        check(f"{cell}, {steps} steps" if steps > 8 else repr(cell), cell, run, given, params, join)
        if cell.heads > 1:
            solved = functools.partial(run, solver=jaxrnn.Newton(1e-12))
            check(f"{cell} by Newton", cell, solved, given, params, join)
    for cell in of_units[:1] if of_time else []:
        both = cell, sharding.SpreadUnits(cell, mesh, "model", "data")
        whole, inside = (jaxrnn.Stack((one, jaxrnn.MinGRU(8, 3))) for one in both)
        given = example(whole, steps=steps, batch=(4,), dtype=jnp.float64)
        check("SpreadUnits in a network", whole, functools.partial(jaxrnn.unroll, inside), given, given[0])
        whole, inside = (functools.partial(jaxrnn.unroll, jaxrnn.Masked(one, "reset"), **masks) for one in both)
        given = example(jaxrnn.Masked(cell), steps=steps, batch=(4,), dtype=jnp.float64)
        found["SpreadUnits over gaps"] = compare(inside, given, whole(*given))
    for cell in of_time:
        given = example(cell, steps=steps, batch=(4,), dtype=jnp.float64)
        check(repr(cell), cell, functools.partial(sharding.unroll_time, cell, **on_axes), given, given[0])
        explicit = on_axes | {"mesh": jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)}
        check(f"{cell}, explicit", cell, functools.partial(sharding.unroll_time, cell, **explicit), given, given[0])
    return found


if __name__ == "__main__":
    if sys.argv[1:]:
        picked = {"every": lambda cell: True, "typical": TYPICAL.__contains__}[sys.argv[1]]
        units = [jaxrnn.Elman(3, 8), jaxrnn.GRU(3, 8), jaxrnn.GRU(3, 8, reset="before"), jaxrnn.GRU(3, 8, heads=4)]
        time = [jaxrnn.MinGRU(3, 4), jaxrnn.LRU(3, 4), jaxrnn.S5(3, 4, scan="associative")]
        found = recipes(units, time, reverse=True)
        print(json.dumps(found), flush=True)
        assert all(f["error"] < 1e-10 for f in found.values())
        for i, cell in enumerate(entry.cell for entry in CELLS + NETWORKS if picked(entry.cell)):
            found = {}
            for path in ["scan", *["native"] * len(native([cell]))]:
                kinds = KINDS if path == "scan" else [*KINDS, TWO]
                kinds = kinds if sys.argv[1] == "every" else [kinds[i % len(kinds)]]
                found |= training([cell], kinds, path=path)
            print(cell, json.dumps(found), flush=True)
            assert all(f["error"] < 1e-10 for f in found.values()), cell
            # A time step over a plane is a loop; with Auto axes its gradients are added up in the loop over time.
            over_plane = repr(cell).startswith(("MD", "Mirrored"))
            for name, f in found.items():
                in_loop = over_plane and ("auto" in name or TWO in name)
                assert f["inside"].keys() == ({"all-reduce"} if in_loop else set()), (cell, name)
            assert all(f["kernels"] >= 2 for name, f in found.items() if "native" in name), cell
    else:
        training(TRACED, ["explicit", "shard_map"], compiled=False)
        units = [jaxrnn.LSTM(3, 8), jaxrnn.LSTM(3, 8, heads=4)]
        found = training(COMPILED, KINDS) | recipes(units, [COMPILED[1]])
        found |= training([jaxrnn.LSTM(3, 4)], ["explicit"], solver=jaxrnn.Newton(1e-12))
        if native(COMPILED[:1]):
            found |= training(native(e.cell for e in CELLS if e.cell in FEW), [*KINDS, TWO], path="native")
            found |= derivatives(KINDS) | recipes(units, [], steps=32)
        print(json.dumps(found))
