"""Pictures: read, split, checked, and handed to a training in batches."""

from .arrays import ColorJitter, Crop, Flip, ResizedCrop
from .images import Stats, UnreadableImageError
from .inspection import FolderReport
from .loaders import Loaders, TransformedLoader

__all__ = [
    "ColorJitter", "Crop", "Flip", "FolderReport", "Loaders", "ResizedCrop", "Stats",
    "TransformedLoader", "UnreadableImageError",
]  # fmt: skip
