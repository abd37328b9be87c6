"""Distributions to learn from: the three of the paper, Gaussian mixtures, and your own points."""

from .cells import count_in_cells as count_in_cells
from .cells import histogram_density as histogram_density
from .dropped import Dropped as Dropped
from .mixture import GaussianMixture as GaussianMixture
from .mixture import MixtureMarginal as MixtureMarginal
from .mixture import gaussian_mixture as gaussian_mixture
from .points import Points as Points
from .points import as_data as as_data
from .points import draw as draw
from .points import split as split
from .points import unconditional as unconditional
from .points import widths_away as widths_away
from .shapes import Checkerboard as Checkerboard
from .shapes import Circles as Circles
from .shapes import checkerboard as checkerboard
from .shapes import circles as circles
