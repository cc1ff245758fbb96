"""What importing basicsr_stvsr is to register, from the command line to that package."""

# True while a command runs that only restores: it comes up in half the time without the classes for training.
needs_networks_only = False
