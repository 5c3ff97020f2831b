"""How good a model is on pictures that it has not learned from, and where it looks."""
