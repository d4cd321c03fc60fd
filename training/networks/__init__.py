"""The networks of MDRNets, one subject a file."""
