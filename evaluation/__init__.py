"""Is it equal, is it good, is it fast? The comparison with PyTorch, quality and speed."""
