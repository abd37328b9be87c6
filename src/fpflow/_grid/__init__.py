from .ode import grid_density_ode as grid_density_ode
from .sde import grid_density_sde as grid_density_sde
