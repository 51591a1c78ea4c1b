"""Native loops on the CPU."""

from jaxrnn.native.calls import Shifted, fits, reference, walk
from jaxrnn.native.compile import obstacle
from jaxrnn.native.rows import Row, Unsupported, trace

__all__ = ["Row", "Shifted", "Unsupported", "fits", "obstacle", "reference", "trace", "walk"]
