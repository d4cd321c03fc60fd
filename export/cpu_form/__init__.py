"""Float graphs in the form that ONNX Runtime computes fast on a CPU: the same function, written otherwise."""
