from .exact import w2_grid as w2_grid
from .result import W2Result as W2Result
from .sinkhorn import Sinkhorn as Sinkhorn
