from .dynamics import density_flow as density_flow
from .dynamics import residual_map as residual_map
from .dynamics import score_field as score_field
from .dynamics import trajectories as trajectories
from .page import Figure as Figure  # pyright: ignore[reportPrivateImportUsage]
from .page import report_page as report_page
from .panels import COLOURS as COLOURS
from .panels import MARKERS as MARKERS
from .panels import against_residual as against_residual
from .panels import curl as curl
from .panels import densities as densities
from .panels import density as density
from .panels import difference as difference
from .panels import loss_curves as loss_curves
