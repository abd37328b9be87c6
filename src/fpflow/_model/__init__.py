from .check import check_counts as check_counts
from .check import check_has_score as check_has_score
from .check import check_score as check_score
from .check import model_dim as model_dim
from .check import model_dtype as model_dtype
from .potential import PotentialMLP as PotentialMLP
from .score import ScoreMLP as ScoreMLP
