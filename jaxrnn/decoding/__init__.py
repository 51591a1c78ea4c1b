"""Generation of sequences from any model, by a function that takes one step.

    state, logits = step(state, token)      token [B] integers, logits [B, V], state: any pytree, leaves [B, ...]

    generate        symbol after symbol, greedy or sampled
    stream          the same, as a Python iterator
    beam_search     the most probable sequences
    score           log probabilities of given sequences
    teacher_forcing logits along given sequences, with scheduled sampling

`make_step` makes a step of a cell, a network or an attention decoder. A method `step` of an `nnx.Module` is one as it
stands. A step of either kind brings its parameters along as arrays, so a function here compiles once for it, and again
only for new shapes. Any other function compiles at each call, unless the call stands inside of `jax.jit`.

A generation begins with a state and each row's last known token. `split_prompt` divides prompts of different lengths
into these tokens and what `unroll` reads before them at full speed.
"""

from jaxrnn.decoding.beams import Beams, beam_search
from jaxrnn.decoding.forcing import score, teacher_forcing
from jaxrnn.decoding.generation import Generated, generate, stream
from jaxrnn.decoding.steps import Prompt, count_tokens, make_step, split_prompt
from jaxrnn.decoding.transforms import MinP, RepetitionPenalty, Temperature, TopK, TopP

__all__ = [
    "Beams",
    "Generated",
    "MinP",
    "Prompt",
    "RepetitionPenalty",
    "Temperature",
    "TopK",
    "TopP",
    "beam_search",
    "count_tokens",
    "generate",
    "make_step",
    "score",
    "split_prompt",
    "stream",
    "teacher_forcing",
]
