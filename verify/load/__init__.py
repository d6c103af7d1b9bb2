"""From a network file or torch module to a checked `Graph`."""
