from .base import AbstractProcess as AbstractProcess
from .base import log_noise_ratio as log_noise_ratio
from .base import mean_scale as mean_scale
from .base import time_at_log_noise_ratio as time_at_log_noise_ratio
from .base import transition_variance as transition_variance
from .ornstein_uhlenbeck import OrnsteinUhlenbeck as OrnsteinUhlenbeck
from .prior import IsotropicGaussian as IsotropicGaussian
