from collections.abc import Callable

from .base import AbstractProcess as AbstractProcess
from .base import at_time as at_time
from .base import at_times as at_times
from .base import graded_times as graded_times
from .base import levels as levels
from .base import variance as variance
from .check import check_process as check_process
from .check import same_noise as same_noise
from .edm import EDM as EDM
from .frame import Frame as Frame
from .linear_path import LinearPath as LinearPath
from .numbers import as_number as as_number
from .numbers import check_numbers as check_numbers
from .numbers import number as number
from .ornstein_uhlenbeck import OrnsteinUhlenbeck as OrnsteinUhlenbeck
from .prior import IsotropicGaussian as IsotropicGaussian
from .trigonometric_path import TrigonometricPath as TrigonometricPath
from .variance_exploding import AbstractNoiseLevel as AbstractNoiseLevel
from .variance_exploding import GeometricNoise as GeometricNoise
from .variance_exploding import HarmonicNoise as HarmonicNoise
from .variance_exploding import VarianceExploding as VarianceExploding
from .variance_preserving import AbstractSignal as AbstractSignal
from .variance_preserving import CosineSchedule as CosineSchedule
from .variance_preserving import LinearSchedule as LinearSchedule
from .variance_preserving import SubVariancePreserving as SubVariancePreserving
from .variance_preserving import TabulatedSchedule as TabulatedSchedule
from .variance_preserving import VariancePreserving as VariancePreserving

# The processes of the command line, by name, as they come.
BY_NAME: dict[str, Callable[[], AbstractProcess]] = {
    "ou": OrnsteinUhlenbeck,
    "vp": VariancePreserving,
    "vp-cosine": lambda: VariancePreserving(schedule=CosineSchedule(), t1=0.995),
    "subvp": SubVariancePreserving,
    "ve": VarianceExploding,
    "ve-harmonic": lambda: VarianceExploding(schedule=HarmonicNoise(), t1=0.999),
    "edm": EDM,
    "linear": LinearPath,
    "trigonometric": TrigonometricPath,
}
