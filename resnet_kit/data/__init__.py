"""Pictures: read, split, checked, and handed to a training in batches."""

from .arrays import ColorJitter, Crop, Flip, ResizedCrop
from .images import UnreadableImageError
from .inspection import FolderReport
from .loaders import Loaders, TransformedLoader
from .stats import Stats

__all__ = [
    "ColorJitter", "Crop", "Flip", "FolderReport", "Loaders", "ResizedCrop", "Stats",
    "TransformedLoader", "UnreadableImageError",
]  # fmt: skip
