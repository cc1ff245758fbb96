"""Read and write frames as images, LMDB, raw video, MATLAB and video files, and convert their colours."""
