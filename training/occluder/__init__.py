"""The occluder: its configuration and its stage of training."""
