"""What a run needs of the machine: cache, places, devices, digests of sources."""
