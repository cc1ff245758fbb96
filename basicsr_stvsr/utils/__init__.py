"""Parts that any program of this kind needs: threads, processes, memory, files; none of them knows a network."""
