"""How fast a chain is, and where its time goes."""
