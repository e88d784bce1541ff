"""The simulated NVIDIA driver; README.md in this folder says what it is."""
