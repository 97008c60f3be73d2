"""Components of the stack: what each one declares in OpenStack, and the settings they read."""
