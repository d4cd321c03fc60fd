"""The verbs of who has faces: complete them, find what covers them, serve a page that does both."""
