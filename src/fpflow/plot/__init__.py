"""Figures from numbers. Every function draws on given or new Axes and returns them; it shows nothing."""

import lazy_loader

# The names stand in __init__.pyi; matplotlib loads with the first picture.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
