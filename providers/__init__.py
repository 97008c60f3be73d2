"""Resource providers: standalone executables that speak ``pulumirpc.ResourceProvider``."""
