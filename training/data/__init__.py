"""Faces, labels and masks: from files to the tensors of a step."""
