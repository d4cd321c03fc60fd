"""Turn a checkpoint into an ONNX bundle and prove that it equals PyTorch."""
