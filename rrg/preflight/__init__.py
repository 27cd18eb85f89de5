"""Before a run is paid for: versions, devices, ports, links between nodes, disks and shards of every node, in seconds."""
