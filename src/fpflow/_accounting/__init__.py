from .kl import KLAccount as KLAccount
from .kl import kl_account as kl_account
from .theorem import TheoremOne as TheoremOne
from .theorem import theorem_one as theorem_one
