"""The graph of a row function: what the loop computes for every row and step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax

from jaxrnn.native.vectors import Kind
from jaxrnn.typing import Array, PyTree

__all__ = ["Matrix", "Node", "Outer", "Outers", "Row", "Spec", "Unsupported"]


class Unsupported(Exception):
    """The native loop has no code for a row function; the text says for what."""


@dataclass(frozen=True, eq=False)
class Node:
    """A value of every row and step.

    Attributes:
        op: a name of `POINTWISE`, or one of
            const, carry, xs: an operand, `attr` its index;
            lit: a number, `attr`, in every place;
            dot: a vector times the `Matrix` `attr`;
            slice: the vector that begins at the place `attr`;
            take: the vector of the places that the operand `attr` lists;
            pick: the scalar at the place `attr`;
            splat, copy: a scalar in every place; a vector as it is;
            row: the row of the `Matrix` `attr` whose number the argument is;
            concat, reduce_sum, reduce_max, reduce_min.
        args: the nodes that it is computed from.
        size: places of a vector, 0 for a scalar; arrays of several axes are vectors too, the last axis innermost.
        kind: float, int32 or bool.
        index: nodes are numbered in an order in which they can be computed.
    """

    op: str
    args: tuple["Node", ...]
    attr: Any
    size: int
    kind: Kind
    index: int

    def __repr__(self) -> str:
        return f"{self.op}{self.index}[{self.size or ''}]"


class Matrix(NamedTuple):
    """A constant operand as the right side of a product, as it lies in memory or transposed."""

    operand: int
    shape: tuple[int, int]
    transposed: bool


class Outer(NamedTuple):
    """A term of a sum over rows and steps: the outer product of two vectors.

    An int32 on the left stands for the vector that is one at this place and zero elsewhere.
    """

    left: Node
    right: Node


Outers = tuple[Outer, ...]
Spec = jax.ShapeDtypeStruct


@dataclass(frozen=True, eq=False)
class Row:
    """A row function as a graph.

    Attributes:
        nodes: all of them, in order.
        carry, ys: the nodes of the results, those over time once each.
        places: for each leaf of the results over time, which of `ys` it is.
        sums: for each leaf, the outer products or the one node that is added up.
        dtype: of the floating-point numbers.
        constants: from the constants' leaves to the operands that `const` nodes and matrices name.
        given: specs of the operands, of the carry and of `xs`.
        results: specs of `(carry, ys, sums)`, as trees.
    """

    nodes: tuple[Node, ...]
    carry: tuple[Node, ...]
    ys: tuple[Node, ...]
    places: tuple[int, ...]
    sums: tuple[Outers | Node | None, ...]
    dtype: Literal["float32", "float64"]
    constants: Callable[[list[Any]], list[Array]]
    given: tuple[list[Spec], list[Spec], list[Spec]]
    results: tuple[PyTree, PyTree, PyTree]
