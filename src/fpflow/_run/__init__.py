from .describe import describe as describe
from .folder import Intervals as Intervals
from .folder import Run as Run
from .folder import asked_by as asked_by
from .folder import has_results as has_results
from .folder import open_run as open_run
from .interrupt import TrainingInterrupted as TrainingInterrupted
