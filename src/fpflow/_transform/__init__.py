"""Changes of variables between data as they come and what networks are made for."""

from .affine import Standardise as Standardise
from .affine import Whiten as Whiten
from .base import AbstractTransform as AbstractTransform
from .base import TransformedLaw as TransformedLaw
from .base import mapped as mapped
from .compose import Compose as Compose
from .dequantised import Dequantised as Dequantised
from .logit import Logit as Logit
