"""A face between the picture and the networks: tensors, holes, landmarks."""
