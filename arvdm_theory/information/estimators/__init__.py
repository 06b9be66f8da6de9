"""Information and divergence estimated from samples, in nats: every estimator gives a :class:`Number` back.

This is the door: what other packages need is named here, and all modules behind it are private to the package.
A name is loaded when it is first asked for, so that importing the package stays light.

Example:
    >>> import numpy as np
    >>> from arvdm_theory.information.estimators import estimate_information
    >>> x, noise = np.random.default_rng(0).normal(size=(2, 1000))
    >>> found = estimate_information(x, 0.6 * x + 0.8 * noise)
    >>> found.ci_low < 0.2231 < found.ci_high
    True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arvdm_theory.information.estimators.arrangements import memory
    from arvdm_theory.information.estimators.baseline import student_information
    from arvdm_theory.information.estimators.calibrated import calibrated_information
    from arvdm_theory.information.estimators.diagnosis import Diagnosis, examine, examine_two
    from arvdm_theory.information.estimators.divergence import calibrated_divergence, knn_divergence
    from arvdm_theory.information.estimators.immse import (
        Denoiser,
        SNRGrid,
        from_ou_denoiser,
        from_ou_score,
        immse_information,
        immse_integral,
        information_from_losses,
    )
    from arvdm_theory.information.estimators.independence import IndependenceTest, independence_test
    from arvdm_theory.information.estimators.knn import ksg, ksg_contributions, mixed_information
    from arvdm_theory.information.estimators.methods import (
        DIVERGENCES,
        METHODS,
        NEURAL_DIVERGENCES,
        NEURAL_METHODS,
        default_divergence,
        default_method,
        estimate_divergence,
        estimate_information,
    )
    from arvdm_theory.information.estimators.neural import Training, neural_divergence, neural_information
    from arvdm_theory.information.estimators.plugin import (
        copula_information,
        discrete_information,
        gaussian_divergence,
        gaussian_information,
        log_det_bias,
    )
    from arvdm_theory.information.estimators.result import EstimationWarning, conclude
    from arvdm_theory.information.estimators.samples import SampleError, sample
    from arvdm_theory.information.estimators.uncertainty import (
        Dependence,
        block_length,
        conclude_mean,
        contribution_error,
        near_zero,
        subsampled,
    )

__all__ = [
    "DIVERGENCES",
    "METHODS",
    "NEURAL_DIVERGENCES",
    "NEURAL_METHODS",
    "Denoiser",
    "Dependence",
    "Diagnosis",
    "EstimationWarning",
    "IndependenceTest",
    "SNRGrid",
    "SampleError",
    "Training",
    "block_length",
    "calibrated_divergence",
    "calibrated_information",
    "conclude",
    "conclude_mean",
    "contribution_error",
    "copula_information",
    "default_divergence",
    "default_method",
    "discrete_information",
    "estimate_divergence",
    "estimate_information",
    "examine",
    "examine_two",
    "from_ou_denoiser",
    "from_ou_score",
    "gaussian_divergence",
    "gaussian_information",
    "immse_information",
    "immse_integral",
    "independence_test",
    "information_from_losses",
    "knn_divergence",
    "ksg",
    "ksg_contributions",
    "log_det_bias",
    "memory",
    "mixed_information",
    "near_zero",
    "neural_divergence",
    "neural_information",
    "sample",
    "student_information",
    "subsampled",
]

# Where each name lives.
_MODULES = {
    "immse": "Denoiser SNRGrid from_ou_denoiser from_ou_score immse_information immse_integral "
    "information_from_losses",
    "independence": "IndependenceTest independence_test memory",
    "diagnosis": "Diagnosis examine examine_two",
    "divergence": "calibrated_divergence knn_divergence",
    "knn": "ksg ksg_contributions mixed_information",
    "methods": "DIVERGENCES METHODS NEURAL_DIVERGENCES NEURAL_METHODS default_divergence default_method "
    "estimate_divergence estimate_information",
    "neural": "Training neural_divergence neural_information",
    "plugin": "copula_information discrete_information gaussian_divergence gaussian_information log_det_bias",
    "baseline": "student_information",
    "calibrated": "calibrated_information",
    "result": "EstimationWarning conclude",
    "samples": "SampleError sample",
    "uncertainty": "Dependence block_length conclude_mean contribution_error near_zero subsampled",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
