"""Metrics: the papers' worked examples and counts by hand."""

import numpy as np
import pytest

from jaxrnn import metrics


def words(text):
    return text.lower().split()


def test_bleu_clips_as_in_papineni_s_example():
    candidate = words("the the the the the the the")
    references = [words("The cat is on the mat"), words("There is a cat on the mat")]
    np.testing.assert_allclose(metrics.bleu(candidate, references, n=1), 2 / 7)


def test_bleu_by_hand():
    candidate, reference = words("a b c d e"), words("a b c x e f")
    # Precisions 4/5, 2/4, 1/3, and for 4-grams no match: 1/2 of 2. Brevity exp(1 - 6/5).
    expected = np.exp(-0.2) * (4 / 5 * 2 / 4 * 1 / 3 * (1 / 2) / 2) ** 0.25
    np.testing.assert_allclose(metrics.bleu(candidate, [reference]), expected)
    # Without a match at all each order halves the factor again.
    expected = ((1 / 2) / 3 * (1 / 4) / 2 * (1 / 8) / 1) ** 0.25
    np.testing.assert_allclose(metrics.bleu(words("a b c"), [words("x y z")]), expected)
    assert metrics.bleu([], [reference]) == 0.0


def test_rouge_is_that_of_lin_s_examples():
    reference = words("police killed the gunman")
    for candidate, bigrams, skip in [
        ("police kill the gunman", 1 / 3, 3 / 6),
        ("the gunman kill police", 1 / 3, 1 / 6),
        ("the gunman police killed", 2 / 3, 2 / 6),
    ]:
        np.testing.assert_allclose(metrics.rouge_n(words(candidate), reference, 2), bigrams)
        np.testing.assert_allclose(metrics.rouge_s(words(candidate), reference), skip)
    assert metrics.rouge_s(words("a b"), words("c d")) == 0.0
    # Neighbours only: the F-measure of bigrams.
    np.testing.assert_allclose(metrics.rouge_s(words("a b c"), words("a b c d"), skip=0), 2 * 1 * (2 / 3) / (1 + 2 / 3))
    # Recall 1/3, precision 1: beta = 2 leans to recall.
    np.testing.assert_allclose(metrics.rouge_s(words("a b"), words("a b c"), beta=2.0), 5 * (1 / 3) / (1 / 3 + 4))


def test_perplexity_and_bits():
    nll = np.log([2.0, 8.0, 4.0])
    np.testing.assert_allclose(metrics.perplexity(nll.mean()), 4.0, rtol=1e-6)
    np.testing.assert_allclose(metrics.bits_per_symbol(nll.mean()), 2.0, rtol=1e-6)


def test_bad_calls_are_refused():
    with pytest.raises(ValueError, match="n: got 0, needs a positive integer"):
        metrics.bleu(["a"], [["a"]], 0)
    with pytest.raises(ValueError, match="references: got none, needs at least one"):
        metrics.bleu(["a"], [])
