"""Networks for real data, in the frame in which every process is the same."""

from .features import NoiseFeatures as NoiseFeatures
from .parameterised import PotentialNetwork as PotentialNetwork
from .parameterised import Preconditioned as Preconditioned
from .parameterised import ReconstructionPotential as ReconstructionPotential
from .parameterised import ScoreNetwork as ScoreNetwork
from .residual_mlp import ResidualMLP as ResidualMLP
from .unet import UNet as UNet
