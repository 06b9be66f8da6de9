"""Public Hypothesis strategies: covariances, joint laws, Markov kernels, plans and small videos.

They reach for the hard cases: nearly singular covariances, zeros of every kind, kernels next to the optimal one,
plateaus of levels, freshly noised references. They need the package ``hypothesis`` (the ``test`` extra).

Example::

    from hypothesis import given
    from arvdm_theory.bounds.impossibility import check_lemma
    from arvdm_theory.testing import finite_laws

    @given(finite_laws(("past", "in", "out")))
    def test_the_lemma(law):
        assert check_lemma(law, "past", "in", "out").holds
"""

from arvdm_theory.testing.covariances import covariances, rotations
from arvdm_theory.testing.laws import (
    GaussianLaw,
    affine_kernels,
    finite_laws,
    gaussian_laws,
    kernels_for,
    markov_kernels,
)
from arvdm_theory.testing.plans import plans, references
from arvdm_theory.testing.videos import gaussian_videos

__all__ = [
    "GaussianLaw",
    "affine_kernels",
    "covariances",
    "finite_laws",
    "gaussian_laws",
    "gaussian_videos",
    "kernels_for",
    "markov_kernels",
    "plans",
    "references",
    "rotations",
]
