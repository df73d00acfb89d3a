"""Other ways to queue the same work, each as its users would write it."""
