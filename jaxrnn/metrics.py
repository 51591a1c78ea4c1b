"""What language models and translations are measured by."""

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import combinations
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrnn.checks import check_at_least, check_counts, check_sizes
from jaxrnn.typing import Array

__all__ = ["bits_per_symbol", "bleu", "perplexity", "rouge_n", "rouge_s"]

Words = Sequence[Hashable]


def perplexity(nll: Any) -> Array:
    """Returns `exp` of a mean negative log-likelihood in nats a token, the mean over all tokens.

    Example:
        >>> round(float(perplexity(np.log(50.0))), 3)
        50.0
    """
    return jnp.exp(jnp.asarray(nll))


def bits_per_symbol(nll: Any) -> Array:
    """Converts a mean negative log-likelihood from nats to bits.

    Example:
        >>> float(bits_per_symbol(2 * np.log(2.0)))
        2.0
    """
    return jnp.asarray(nll) / float(np.log(2.0))


def _words(words: Any, name: str) -> Words:
    """Returns tokens as a sequence of what can be compared; raises unless they are one."""
    words = words.tolist() if hasattr(words, "tolist") else words
    if not isinstance(words, Sequence):
        raise TypeError(f"{name}: got {type(words).__name__}, needs a sequence of tokens, such as text.split()")
    if not all(isinstance(word, Hashable) for word in words):
        raise TypeError(f"{name}: got a sequence of {type(words[0]).__name__}, needs the tokens of one text")
    return words


def _ngrams(words: Words, n: int) -> Counter[tuple[Hashable, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def bleu(candidate: Words, references: Sequence[Words], n: int = 4) -> float:
    """Computes the BLEU of one candidate: the geometric mean of clipped n-gram precisions, times a penalty for brevity.

    The k-th order without a match counts as 2^-k matches; an order longer than the candidate has the precision 1.

    Args:
        candidate: tokens.
        references: one or more sequences of tokens; the length that counts is the nearest to the candidate's.
        n: the highest order.

    Example:
        >>> bleu("the cat sat on the mat".split(), ["the cat sat on the mat".split()])
        1.0

    Reference: Papineni, Roukos, Ward & Zhu 2002, "BLEU"; smoothing as in torch/rnn's `get_bleu` and NIST's script.
    """
    check_sizes(n=n)
    candidate = _words(candidate, "candidate")
    # A word of a text is itself a sequence, of characters.
    if isinstance(references, str) or (not isinstance(candidate, str) and any(isinstance(r, str) for r in references)):
        raise TypeError("references: got one text, needs a list of them, [reference]")
    references = [_words(reference, f"references[{i}]") for i, reference in enumerate(references)]
    if not references:
        raise ValueError("references: got none, needs at least one")
    if not candidate:
        return 0.0
    total, factor = 0.0, 1.0
    for order in range(1, n + 1):
        counts = _ngrams(candidate, order)
        if not counts:
            continue
        best: Counter[tuple[Hashable, ...]] = Counter()
        for reference in references:
            best |= _ngrams(reference, order)
        matches: float = (counts & best).total()
        if not matches:
            factor /= 2
            matches = factor
        total += float(np.log(matches / counts.total()))
    length = min((abs(len(r) - len(candidate)), len(r)) for r in references)[1]
    return float(np.exp(total / n + min(0.0, 1 - length / len(candidate))))


def rouge_n(candidate: Words, reference: Words, n: int = 2) -> float:
    """Computes ROUGE-N: the share of the reference's n-grams that the candidate has; zero where the reference has none.

    Example:
        >>> rouge_n("the cat sat".split(), "the cat ran".split(), n=1)
        0.6666666666666666

    Reference: Lin 2004, "ROUGE: a package for automatic evaluation of summaries".
    """
    check_sizes(n=n)
    wanted = _ngrams(_words(reference, "reference"), n)
    return (wanted & _ngrams(_words(candidate, "candidate"), n)).total() / max(wanted.total(), 1)


def rouge_s(candidate: Words, reference: Words, beta: float = 1.0, skip: int | None = None) -> float:
    """Computes ROUGE-S: the F-measure of ordered pairs of words, with at most `skip` words between the two.

    Args:
        candidate: tokens.
        reference: tokens.
        beta: weight of recall against precision.
        skip: words between the two of a pair, at most; None: any number.

    Example:
        >>> rouge_s("police killed the gunman".split(), "police kill the gunman".split())
        0.5

    Reference: Lin 2004, section 5.
    """
    check_at_least(0, beta=beta)
    if skip is not None:
        check_counts(skip=skip)

    def pairs(words: Words) -> Counter[tuple[Hashable, Hashable]]:
        found = combinations(enumerate(words), 2)
        return Counter((a, b) for (i, a), (j, b) in found if skip is None or j - i - 1 <= skip)

    ours, theirs = pairs(_words(candidate, "candidate")), pairs(_words(reference, "reference"))
    common = (ours & theirs).total()
    if not common:
        return 0.0
    recall, precision = common / theirs.total(), common / ours.total()
    return (1 + beta**2) * recall * precision / (recall + beta**2 * precision)
