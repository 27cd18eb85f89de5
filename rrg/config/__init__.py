"""Three layers of truth: dataclasses (types, defaults, docs), YAML recipes, dotted overrides."""
