def get_dist_info() -> tuple[int, int]: ...  # rank, world size
