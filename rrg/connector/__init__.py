"""The bridge between visual tokens and the language model: what is trained."""
