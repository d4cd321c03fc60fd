"""Is it good? Scores of a model and of methods beside it, diagnosis and ablations."""
