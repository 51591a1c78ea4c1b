"""Activations of ONNX's recurrent operators, with their numbers, as functions that compare by value."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrnn.convert.activations import ACTIVATIONS, activation_name
from jaxrnn.typing import Activation, Array

__all__ = ["POINTWISE", "SOFTMAX", "OnnxActivation", "as_onnx", "from_attributes", "from_name"]

POINTWISE = ("Elu", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Softplus", "Softsign", "Tanh")
"""Activations that are also operators of their own."""
SOFTMAX: Mapping[str, Activation] = MappingProxyType({"LogSoftmax": jax.nn.log_softmax, "Softmax": jax.nn.softmax})
"""Operators on the last axis."""

# What a function takes, and its defaults; None: ONNX defines none.
_NUMBERS: Mapping[str, Mapping[str, float | None]] = MappingProxyType(
    {
        "Affine": {"alpha": None, "beta": None},
        "Elu": {"alpha": 1.0},
        "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
        "LeakyRelu": {"alpha": 0.01},
        "Relu": {},
        "ScaledTanh": {"alpha": None, "beta": None},
        "Sigmoid": {},
        "Softplus": {},
        "Softsign": {},
        "Tanh": {},
        "ThresholdedRelu": {"alpha": 1.0},
    }
)


def _numbers(name: str) -> Mapping[str, float | None]:
    if name not in _NUMBERS:
        raise ValueError(f"activation: got {name!r}, needs one of {', '.join(_NUMBERS)}")
    return _NUMBERS[name]


@dataclass(frozen=True)
class OnnxActivation:
    """An activation of ONNX that JAX has no function for: `φ(z)`, or `φ(clip(z, -clip, clip))`.

    Args:
        name: of the function, as ONNX writes it.
        alpha: its α; None if the function has none.
        beta: its β; None if the function has none.
        clip: the bound of what the function sees, which is kept within ±clip; None: no bound.

    Raises:
        ValueError: the name is unknown, or the numbers are not those that the function takes.

    Example:
        >>> import jaxrnn
        >>> cell = jaxrnn.Elman(3, 4, activation=OnnxActivation("Tanh", clip=0.5))
        >>> cell
        Elman(input_size=3, hidden_size=4, activation=OnnxActivation(name='Tanh', alpha=None, beta=None, clip=0.5))
        >>> float(cell.activation(2.0)) == float(jnp.tanh(0.5))
        True
    """

    name: str
    alpha: float | None = None
    beta: float | None = None
    clip: float | None = None

    def __post_init__(self) -> None:
        takes = _numbers(self.name)
        for number in ("alpha", "beta"):
            if (getattr(self, number) is not None) != (number in takes):
                needs = "a number" if number in takes else "None"
                raise ValueError(f"{number}: got {getattr(self, number)}, {self.name} needs {needs}")

    def __call__(self, z: Array) -> Array:
        z = z if self.clip is None else jnp.clip(z, -self.clip, self.clip)
        a: Any = self.alpha
        b: Any = self.beta
        match self.name:
            case "Affine":
                return a * z + b
            case "Elu":
                return jax.nn.elu(z, a)
            case "HardSigmoid":
                return jnp.clip(a * z + b, 0, 1)
            case "LeakyRelu":
                return jax.nn.leaky_relu(z, a)
            case "ScaledTanh":
                return a * jnp.tanh(b * z)
            case "ThresholdedRelu":
                return jnp.where(z >= a, z, jnp.zeros_like(z))
            case _:
                return ACTIVATIONS[_OF_ONNX[OnnxActivation(self.name)]](z)


# JAX's functions, by the names of `ACTIVATIONS`, that are activations of ONNX.
_OF_JAX: Mapping[str, OnnxActivation] = MappingProxyType(
    {
        "elu": OnnxActivation("Elu", 1.0),
        "hard_sigmoid": OnnxActivation("HardSigmoid", 1 / 6, 0.5),
        "identity": OnnxActivation("Affine", 1.0, 0.0),
        "leaky_relu": OnnxActivation("LeakyRelu", 0.01),
        "relu": OnnxActivation("Relu"),
        "sigmoid": OnnxActivation("Sigmoid"),
        "soft_sign": OnnxActivation("Softsign"),
        "softplus": OnnxActivation("Softplus"),
        "tanh": OnnxActivation("Tanh"),
    }
)


def _single(number: float | None) -> float | None:
    """Rounds a number as attributes of ONNX are: they are float32."""
    return None if number is None else float(np.float32(number))


def _key(a: OnnxActivation) -> OnnxActivation:
    return OnnxActivation(a.name, _single(a.alpha), _single(a.beta))


_OF_ONNX: Mapping[OnnxActivation, str] = MappingProxyType({_key(a): name for name, a in _OF_JAX.items()})


def from_name(
    name: str, alpha: float | None = None, beta: float | None = None, clip: float | None = None
) -> Activation:
    """Returns ONNX's function: JAX's own where there is one, else an `OnnxActivation`; numbers have ONNX's defaults.

    Example:
        >>> from_name("Elu", alpha=1.0) is jax.nn.elu, from_name("Elu", alpha=0.5)
        (True, OnnxActivation(name='Elu', alpha=0.5, beta=None, clip=None))
    """
    takes = _numbers(name)
    alpha, beta = (takes.get(n) if got is None else got for n, got in (("alpha", alpha), ("beta", beta)))
    found = OnnxActivation(name, alpha, beta, clip)
    return ACTIVATIONS[_OF_ONNX[_key(found)]] if clip is None and _key(found) in _OF_ONNX else found


def from_attributes(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float], clip: float | None, clipped: Sequence[bool]
) -> list[Activation]:
    """Returns the functions that the attributes of a recurrent node name.

    The numbers are those of the functions that take them, in the order of the functions.

    Args:
        names: `activations`, in any case.
        alphas: `activation_alpha`.
        betas: `activation_beta`.
        clip: the bound of what the functions see, or None.
        clipped: of each function, whether `clip` bounds it.

    Raises:
        ValueError: a name is unknown, or there are more or fewer numbers than the functions take.
    """
    left: dict[str, Iterator[float]] = {"alpha": iter(alphas), "beta": iter(betas)}
    functions = []
    for name, bounded in zip(names, clipped, strict=True):
        name = next((known for known in _NUMBERS if known.lower() == name.lower()), name)
        numbers: dict[str, Any] = {}
        for number, default in _numbers(name).items():
            numbers[number] = next(left[number], default)
            if numbers[number] is None:
                raise ValueError(f"activation_{number}: got none for {name}, which has no default")
        functions.append(from_name(name, **numbers, clip=clip if bounded else None))
    for number, rest in left.items():
        if more := list(rest):
            raise ValueError(f"activation_{number}: got {more} more than the functions {list(names)} take")
    return functions


def as_onnx(function: Activation) -> OnnxActivation:
    """Returns an activation as ONNX's, the inverse of `from_name`.

    Raises:
        ValueError: ONNX has no such activation.

    Example:
        >>> as_onnx(jax.nn.leaky_relu)
        OnnxActivation(name='LeakyRelu', alpha=0.01, beta=None, clip=None)
    """
    if isinstance(function, OnnxActivation):
        return function
    name = activation_name(function)
    if name is None or name not in _OF_JAX:
        shown = name or getattr(function, "__name__", repr(function))
        raise ValueError(f"activation: got {shown}, ONNX's recurrent operators have only {', '.join(_NUMBERS)}")
    return _OF_JAX[name]
