"""Does a candidate compute what the reference computes? Every stage alone, then the whole chain."""
