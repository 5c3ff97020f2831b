"""How good a model is on pictures that it has not learned from, and where it looks."""

from .evaluation import Evaluation, wilson_interval

__all__ = ["Evaluation", "wilson_interval"]
