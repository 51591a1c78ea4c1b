"""Sequences of different length: masks, pooling, padding and packing.

A mask is `[T, *batch]` booleans, true at valid steps. No function guesses a mask from the data. Three ways:

    lengths=    rows are valid from the start; beyond, the state is held and the output is zero (`unroll`)
    resets=     rows hold several sequences, one after the other (`unroll`; `pack` makes them)
    Masked      gaps anywhere; the state is held over them (Keras) or reset by them (Element-Research's MaskZero)

`pad`, `pack`, `buckets` and the conversions of PyTorch's `PackedSequence` use NumPy. All other functions work under
`jit`.
"""

from jaxrnn.sequences.lists import (
    Packed,
    Padded,
    buckets,
    from_packed_sequence,
    last_of_each,
    pack,
    pad,
    to_packed_sequence,
    unpack,
)
from jaxrnn.sequences.masks import lengths_from_mask, mask_from_lengths, mask_from_zeros, reverse_sequence
from jaxrnn.sequences.outputs import bidirectional_last_output, held_output, last_output, max_output, mean_output
from jaxrnn.sequences.repeated import repeat

__all__ = [
    "Packed",
    "Padded",
    "bidirectional_last_output",
    "buckets",
    "from_packed_sequence",
    "held_output",
    "last_of_each",
    "last_output",
    "lengths_from_mask",
    "mask_from_lengths",
    "mask_from_zeros",
    "max_output",
    "mean_output",
    "pack",
    "pad",
    "repeat",
    "reverse_sequence",
    "to_packed_sequence",
    "unpack",
]
