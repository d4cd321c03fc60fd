"""Does it find what covers a face? Scores of a bundle's occluder, and what a found mask costs."""
