from .ode import LogProbODE as LogProbODE
from .ode import ThroughResidual as ThroughResidual
from .ode import flow_log_prob as flow_log_prob
from .ode import log_prob_ode as log_prob_ode
from .sde import EvidenceBound as EvidenceBound
from .sde import LogProbSDE as LogProbSDE
from .sde import evidence_bound as evidence_bound
from .sde import log_prob_sde as log_prob_sde
