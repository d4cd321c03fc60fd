"""Engines of TensorRT and TensorRT-RTX on a CUDA device: what they declare, and how they are run."""
