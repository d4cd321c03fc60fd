"""What comes from files that nobody vouches for: read within bounds, looked into, and printed as text."""
