"""The command line of basicsr_stvsr: what `stvsr` takes, in modules that import nothing heavy.

It is a package of its own, as importing any module of basicsr_stvsr imports torch and basicsr, to register its classes
there. A command is imported from basicsr_stvsr.cli when it runs, so that help and usage errors come at once.
"""
