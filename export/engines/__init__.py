"""Build engines from a bundle. Needs TensorRT or TensorRT-RTX and Polygraphy; neither torch nor onnx.

A device can so build for itself from the bundle that it was given. Where ``onnx`` is installed too, errors
name the torch module that a node came from.
"""
