"""From a PyTorch model to what a bundle of it holds, and the model itself as a backend."""
