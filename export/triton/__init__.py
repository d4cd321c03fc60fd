"""A model repository for NVIDIA Triton, written from the stage table."""
