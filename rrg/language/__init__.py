"""The language model: frozen, adapted, or small and of our own training."""
