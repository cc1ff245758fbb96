"""The command line of basicsr_stvsr, in modules that import nothing heavy.

It is a separate package, because importing any module of basicsr_stvsr imports torch and basicsr to register classes.
Commands are imported from basicsr_stvsr.cli when they run, so help and usage errors appear at once.
"""
