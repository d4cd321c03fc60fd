"""The verbs of who brings a model to a device: export, calibrate, build and pack it, and prove it there."""
