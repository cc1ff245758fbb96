"""Files of frames: images, LMDB, raw video, MATLAB and video files, and the colours of their pixels."""
