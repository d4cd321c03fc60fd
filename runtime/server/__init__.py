"""A small HTTP server around an inpainter: completes faces, shows the stages, and has a page to paint the hole."""
