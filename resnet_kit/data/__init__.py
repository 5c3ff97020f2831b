"""Pictures: read, split, checked, and handed to a training in batches."""
