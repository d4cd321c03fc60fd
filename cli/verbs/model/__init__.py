"""The verbs of who makes a model: train it, and measure how good it is."""
