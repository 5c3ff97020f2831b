"""One training: its loop, its history and checkpoints, and the search for a learning rate."""
