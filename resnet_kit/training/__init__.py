"""One training: its loop, its history and checkpoints, and the search for a learning rate."""

from .lr_finder import LrSearch
from .state import History

__all__ = ["History", "LrSearch"]
