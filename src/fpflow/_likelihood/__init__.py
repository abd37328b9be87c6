from .evidence import EvidenceBound as EvidenceBound
from .evidence import evidence_bound as evidence_bound
from .ode import LogProbODE as LogProbODE
from .ode import ThroughResidual as ThroughResidual
from .ode import flow_log_prob as flow_log_prob
from .ode import log_prob_ode as log_prob_ode
from .sde import LogProbSDE as LogProbSDE
from .sde import log_prob_sde as log_prob_sde
