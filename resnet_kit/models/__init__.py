"""Residual networks, the weights that they start from, and what transfer learning adds to them."""
