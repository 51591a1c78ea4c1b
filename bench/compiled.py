"""What do the compilers for accelerators make of a training step? Nothing is run, and no accelerator is needed.

    python -m bench.compiled --device tpu                  for a TPU v5e     pip install libtpu
    python -m bench.compiled --device tpu --devices 4      for four of them, which share the rows of the batch
    python -m bench.compiled --device cuda                 for an H200       pip install 'jax[cuda12]'
    python -m bench.compiled --cells all --size 16,64,128,128       every cell of `bench.cells`, forward, too

A training step is the value of `mean(ys²)` and its gradients with respect to all parameters and the inputs.
`bench.kernels` counts: "fused runs" are runs over all time steps that are one kernel. All numbers are of one device.
Why a cell of `bench.cells` is run by a scan is said on standard error.
"""

import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxrnn
from bench.cells import cells
from bench.kernels import launches
from bench.records import Output, Record, progress, report
from bench.rivals import CELLS, OURS, Programs, Size, jax_programs, programs

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 4800000000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 151000000000 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 8 patch: 0 } device_description_str: "NVIDIA H200"
"""


@dataclass(frozen=True, kw_only=True)
class Settings(Output):
    """Compile training steps for an accelerator."""

    device: Literal["tpu", "cuda"] = "tpu"
    """Which: a TPU v5e, or an H200."""
    devices: Literal[1, 2, 4] = 1
    """How many TPUs share the rows of the batch."""
    cells: tuple[str, ...] = ("lstm", "gru")
    """Which cells: of lstm, gru, elman, beside rivals; or by their names in `docs/cells.md`, alone; or all of these."""
    size: str = "64,256,512,512"
    """B,T,I,H: batch, time, inputs, hidden."""
    rivals: tuple[str, ...] = ("plain scan", "flax linen")
    """What is compiled beside it, of JAX's libraries in `bench.unroll`."""


def tpu() -> list[Any]:
    """Four TPUs v5e of libtpu's."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices


def cuda() -> list[Any]:
    """An H200 of the plugin of `jax[cuda12]`, which says on standard error that it found no driver."""
    import jax_plugins.xla_cuda12 as plugin
    from jaxlib import xla_client

    folder = pathlib.Path(str(plugin.__file__)).parents[2] / "nvidia/cuda_nvcc/bin"
    os.environ["PATH"] += os.pathsep + str(folder)
    client = xla_client.load_pjrt_plugin_dynamically("cuda", str(plugin._get_library_path()))
    xla_client.initialize_pjrt_plugin("cuda")
    topology = xla_client.make_c_api_device_topology(client, "h200", target_config=H200, topology="1x1x1")
    return topology._make_compile_only_devices()[:1]


DEVICES = {"tpu": ("TPU v5e", tpu, "tpu"), "cuda": ("H200", cuda, "gpu")}
"""Name, where it is found, and what JAX calls such a machine."""


def compiled(program: Callable[..., Any], params: Any, xs: Any, devices: list[Any]) -> Any:
    """A jitted program of parameters and inputs as those devices would run it, rows of the inputs apart."""
    mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))

    def shapes(tree: Any, *spec: Any) -> Any:
        there = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a), sharding=there), tree)

    return jax.jit(program).lower(shapes(params), shapes(xs, None, "data")).compile()


def collectives(text: str) -> tuple[int, int]:
    """How many operations of a compiled program send something to other devices, and how many of those are in loops."""
    loops = set(re.findall(r"body=%?([\w.\-]+)", text))
    every = inside = 0
    for computation in re.split(r"\n(?=%|ENTRY)", text):
        name = re.match(r"%?([\w.\-]+) ", computation)
        count = len(re.findall(rf" (?:{'|'.join(COLLECTIVES)})(?:-start)?\(", computation))
        every += count
        inside += count if name and name.group(1) in loops else 0
    return every, inside


def figures(program: Callable[[], Any], devices: list[Any], **place: Any) -> Iterator[Record]:
    """Those of a program of `bench.rivals`, compiled for these devices, in a row of a table."""

    def figure(column: str, value: float, unit: str = "") -> Record:
        return Record(column=column, value=value, unit=unit, **place)

    start = time.perf_counter()
    ready = compiled(program.func, *program.args, devices)
    seconds, found = time.perf_counter() - start, launches(ready)
    yield figure("fused runs", found.fused)
    yield figure("loops", len(found.loops))
    yield figure("kernels in them, a step", found.kernels)
    if len(devices) > 1:
        every, inside = collectives(ready.as_text())
        yield figure("collectives", every)
        yield figure("collectives in loops", inside)
    yield figure("temporary memory", found.temporary / 1e6, "MB")
    yield figure("compilation", seconds, "s")


def alone(cell: jaxrnn.Cell, size: Size) -> Programs:
    """The programs of one of our cells, of zeros."""
    xs = jnp.zeros((size.time, size.batch, *cell.input_spec.shape))
    return jax_programs(lambda params, xs: jaxrnn.unroll(cell, params, xs)[1], cell.init(jax.random.key(0)), xs)


def records(settings: Settings) -> Iterator[Record]:
    name, find, backend = DEVICES[settings.device]
    devices, size = find()[: settings.devices], Size.read(settings.size)
    if len(devices) < settings.devices:
        raise ValueError(f"devices: got {settings.devices}, a program for an {name} is for one")
    at = f"at {settings.size}, compiled for {f'{len(devices)} x ' if len(devices) > 1 else ''}{name}"
    every = cells(size.inputs, size.hidden)
    picked = tuple(every) if settings.cells == ("all",) else settings.cells
    if unknown := set(picked) - {*CELLS, *every}:
        raise SystemExit(f"cells: got {', '.join(unknown)}, needs all, or some of {', '.join([*CELLS, *every])}")
    # What the library does depends on the machine that JAX runs on.
    with mock.patch.object(jax, "default_backend", return_value=backend):
        for kind in progress(picked, "bench.compiled"):
            if kind in CELLS:
                for rival, made in programs(kind, size, ("jaxrnn", *settings.rivals)).items():
                    place = {"table": f"{kind}, training step {at}", "rows": "", "row": rival, "ours": rival in OURS}
                    yield from figures(made.train, devices, **place)
                continue
            cell = every[kind]
            for task, made in zip(("forward", "training step"), alone(cell, size), strict=True):
                place = {"table": f"cells, {task} {at}", "rows": "cell", "row": f"`{kind}`"}
                yield from figures(made, devices, **place)
            for choice in jaxrnn.explain(cell, steps=size.time, batch=size.batch // len(devices)):
                if choice.reason:
                    print(choice, file=sys.stderr)


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    report(records(settings), settings)
