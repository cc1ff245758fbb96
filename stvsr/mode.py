"""Switch from the command line: what importing basicsr_stvsr registers."""

# True for commands that only restore. They start in less than half the time without the classes for training.
needs_networks_only = False
