"""Standard errors of means of few values."""

from typing import Any

import numpy as np

from ._types import ArrayLike


def student(freedom: Any) -> Any:
    r"""By how much an error is wider whose variance is known to so many degrees of freedom, so that
    twice the error holds 95.45 %: Student's quantile over the normal one, by the series of Cornish and
    Fisher, to one per cent from two degrees on."""
    return 1 + 1.25 / freedom + 1.53 / freedom**2 + 1.43 / freedom**3 + 0.92 / freedom**4


def mean_and_error(values: ArrayLike, axis: int = 0) -> tuple[Any, Any]:
    """The mean along an axis and its standard error, two of which hold 95 % for few values too."""
    values = np.asarray(values, float)
    n = values.shape[axis]
    mean, error = values.mean(axis), values.std(axis, ddof=1) / n**0.5 * student(n - 1)
    return (mean, error) if values.ndim > 1 else (float(mean), float(error))
