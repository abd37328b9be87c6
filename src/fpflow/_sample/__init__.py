from .draw import sample_histogram as sample_histogram
from .draw import sample_ode as sample_ode
from .draw import sample_sde as sample_sde
from .trajectories import Trajectories as Trajectories
from .trajectories import ode_trajectories as ode_trajectories
