"""Activations by name, as other libraries and files write them."""

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp

from jaxrnn.typing import Activation

__all__ = ["ACTIVATIONS", "activation_name"]

ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {
        "celu": jax.nn.celu,
        "cos": jnp.cos,
        "elu": jax.nn.elu,
        "exp": jnp.exp,
        "gelu": jax.nn.gelu,
        "hard_sigmoid": jax.nn.hard_sigmoid,
        "hard_tanh": jax.nn.hard_tanh,
        "identity": jax.nn.identity,
        "leaky_relu": jax.nn.leaky_relu,
        "log_sigmoid": jax.nn.log_sigmoid,
        "mish": jax.nn.mish,
        "relu": jax.nn.relu,
        "relu6": jax.nn.relu6,
        "selu": jax.nn.selu,
        "sigmoid": jax.nn.sigmoid,
        "silu": jax.nn.silu,
        "sin": jnp.sin,
        "soft_sign": jax.nn.soft_sign,
        "softplus": jax.nn.softplus,
        "tanh": jnp.tanh,
    }
)
"""The functions of JAX that cells are given, by JAX's names."""

_ALIASES: Mapping[Activation, str] = MappingProxyType(
    {function: name for name, function in ACTIVATIONS.items()}
    | {
        jax.lax.logistic: "sigmoid",
        jax.lax.tanh: "tanh",
        jax.nn.swish: "silu",
        jax.nn.tanh: "tanh",
    }
)


def activation_name(function: Activation) -> str | None:
    """Returns the name of a function of `ACTIVATIONS`, under any of JAX's names for it; None for another function.

    Example:
        >>> activation_name(jax.nn.tanh), activation_name(lambda x: x)
        ('tanh', None)
    """
    return _ALIASES.get(function)
