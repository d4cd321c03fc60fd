"""Run exported MDRNets with numpy, OpenCV and an inference backend; needs no torch."""
