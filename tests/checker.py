"""The type checker of the import hook: beartype, with integers allowed where floats are."""

from beartype import BeartypeConf, beartype

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))
