from .pointwise import NatsGap as NatsGap
from .pointwise import PointwiseGap as PointwiseGap
from .report import GapReport as GapReport
from .report import gap_report as gap_report
from .settings import ReportSettings as ReportSettings
from .split import GapSplit as GapSplit
