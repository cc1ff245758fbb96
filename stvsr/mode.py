"""What importing basicsr_stvsr is to register, from the command line to that package."""

# True for commands that only restore: without the classes for training they start in less than half the time.
needs_networks_only = False
