"""What each training stage trains: its networks, its loss terms, and what is made for it beforehand."""
