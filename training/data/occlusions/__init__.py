"""Faces with synthetic occlusions: cut-outs pasted, things drawn, and what must not be taken for an occlusion."""
