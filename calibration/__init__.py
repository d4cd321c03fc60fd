"""INT8 variants of a bundle: measured, gated and explained."""
