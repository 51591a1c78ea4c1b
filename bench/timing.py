"""Interleaved timing of several programs in one run, and what they ran on."""

import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from importlib import metadata

import jax
import jax.numpy as jnp

__all__ = ["gemm_peak", "geometric_mean", "interleaved", "machine", "versions"]

PAUSE = 0.05  # seconds before a turn


def interleaved(
    programs: dict[str, Callable[[], object]], repeats: int, at_least: float = 0.1
) -> tuple[dict[str, float], dict[str, float]]:
    """`(compile seconds, median seconds)` of each program; the first call compiles.

    The programs take turns, so that a slow spell of the machine meets all of them, and in a new order each round: what
    ran before leaves its mark. So that it is not measured, a turn begins with a pause, in which threads that spin when
    their work is done (PyTorch's, ONNX Runtime's) stop, and with a call that isn't counted, which gets the memory that
    the others gave back. Then it repeats its program until `at_least` seconds have passed and counts the mean.
    """
    compiling, counts = {}, {}
    for name, program in programs.items():
        start = time.perf_counter()
        jax.block_until_ready(program())
        compiling[name] = time.perf_counter() - start
    for name, program in programs.items():
        start = time.perf_counter()
        jax.block_until_ready(program())
        counts[name] = max(1, int(at_least / (time.perf_counter() - start)))
    samples: dict[str, list[float]] = {name: [] for name in programs}
    order, shuffle = list(programs.items()), random.Random(0).shuffle
    for _ in range(repeats):
        shuffle(order)
        for name, program in order:
            time.sleep(PAUSE)
            jax.block_until_ready(program())
            start = time.perf_counter()
            for _ in range(counts[name]):
                jax.block_until_ready(program())
            samples[name].append((time.perf_counter() - start) / counts[name])
    return compiling, {name: statistics.median(s) for name, s in samples.items()}


def geometric_mean(values: list[float]) -> float:
    """The n-th root of the product; NaN of none."""
    return statistics.geometric_mean(values) if values else float("nan")


def gemm_peak(size: int = 2048, repeats: int = 9) -> float:
    """Best FLOP/s of a square float32 product on JAX's default device."""
    a = jax.random.normal(jax.random.key(0), (size, size), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(a))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(product(a))
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def machine() -> str:
    """JAX's device, and the processor it stands in."""
    processor = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            processor = next((s.split(":")[1].strip() for s in lines if s.startswith("model name")), processor)
    return f"{jax.devices()[0].device_kind}; {os.cpu_count()} cores, {processor}"


def versions(packages: tuple[str, ...]) -> str:
    """Names and versions of those packages that are installed."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)
