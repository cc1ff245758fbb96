"""General utilities for threads, processes, memory and files; none depends on networks."""
