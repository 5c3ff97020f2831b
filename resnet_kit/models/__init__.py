"""Residual networks, the weights that they start from, and what transfer learning adds to them."""

from .transfer import replace_head, trainable_table
from .weights import Weights

__all__ = ["Weights", "replace_head", "trainable_table"]
