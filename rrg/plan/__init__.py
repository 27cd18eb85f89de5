"""What a training step costs, before a GPU is paid for: bytes, traffic and time of every strategy."""
