from .ode import grid_density_ode as grid_density_ode
from .potential import grid_density_potential as grid_density_potential
from .sde import density_history as density_history
from .sde import grid_density_sde as grid_density_sde
