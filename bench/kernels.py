"""What a compiled program launches, read in its text: runs that are one kernel, and kernels in loops.

Each operation that a loop launches at every time step is a kernel of its own. An innermost loop holds no other loop.
"""

import re
from typing import Any, NamedTuple

__all__ = ["Launches", "launches"]

KERNELS = ("fusion", "custom-call", "copy", "dot", "convolution")
FUSED = r'custom_call_target="(?:tpu_custom_call|jaxrnn|cudnn_rnn)'  # of Pallas, of jaxrnn's native loops, of cuDNN


class Launches(NamedTuple):
    """Of one program."""

    fused: int  # runs over all time steps that are one kernel
    loops: tuple[tuple[str, ...], ...]  # the operations of a round of each innermost loop
    temporary: int  # bytes

    @property
    def kernels(self) -> int:
        """Kernels that the loops launch at every time step."""
        return sum(operation in KERNELS for loop in self.loops for operation in loop)


def launches(program: Any) -> Launches:
    """Those of a `jax.stages.Compiled`."""
    text = program.as_text()
    fused = len(re.findall(FUSED, text))
    return Launches(fused, loops(text), program.memory_analysis().temp_size_in_bytes)


def loops(text: str) -> tuple[tuple[str, ...], ...]:
    """The operations of a round of each innermost loop of a compiled program."""
    parts = re.split(r"\n(?=%|ENTRY)", text)
    computations = {m.group(1): part for part in parts if (m := re.match(r"%?([\w.\-]+) ", part))}

    def operations(name: str) -> list[str]:
        """Those of a computation, and in the place of a call those that it calls."""
        found = []
        for operation, rest in re.findall(r" ([\w\-]+)\((.*)", computations[name]):
            called = re.search(r"to_apply=%?([\w.\-]+)", rest)
            found += operations(called.group(1)) if operation == "call" and called else [operation]
        return found

    bodies = [operations(name) for name in dict.fromkeys(re.findall(r"body=%?([\w.\-]+)", text))]
    return tuple(tuple(body) for body in bodies if "while" not in body)
