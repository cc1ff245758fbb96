"""What a validation and a test say of frames: scores, in processes beside the network, and pictures."""
