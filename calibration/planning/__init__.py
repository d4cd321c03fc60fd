"""Which layers run in 8 bits: candidates are built, probed, judged and timed, and the plan says the rest."""
