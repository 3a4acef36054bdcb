"""Studies as jobs: done by their ids in a process of its own, into a folder of results and probes."""
