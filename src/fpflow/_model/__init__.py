from .potential import PotentialMLP as PotentialMLP
from .score import ScoreMLP as ScoreMLP
