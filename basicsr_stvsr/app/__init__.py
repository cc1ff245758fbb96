"""A local web app that restores videos: `stvsr app`."""
