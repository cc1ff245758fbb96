"""What touches a file of frames: images, LMDB, raw video, MATLAB files, video files, and the colours of their pixels."""
