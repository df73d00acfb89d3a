"""Find a model file by name, read its card without loading it, and load it with the runtime that fits."""
