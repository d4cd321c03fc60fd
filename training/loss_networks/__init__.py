"""Networks that a loss asks, fixed or trained against the model; none of them is exported."""
