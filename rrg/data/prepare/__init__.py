"""From a published collection to shards: one module per source, each with `read_<source>` that gives a `Collection`."""
