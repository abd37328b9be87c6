from .gap_bound import GapBound as GapBound
from .gap_bound import gap_bound as gap_bound
from .kl import KLAccount as KLAccount
from .kl import kl_account as kl_account
from .theorem import TheoremOne as TheoremOne
from .theorem import theorem_one as theorem_one
