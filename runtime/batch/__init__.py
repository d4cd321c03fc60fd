"""Completes a folder of faces and loses none: reading, the order of work, writing, results."""
