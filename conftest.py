"""Tests and notebooks run in quick mode, wherever pytest starts them."""

import os

os.environ["RESNET_KIT_QUICK"] = "1"
os.environ["TQDM_DISABLE"] = "1"
