"""Train MDRNets with PyTorch."""
