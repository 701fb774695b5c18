"""Models and adapters from files, folders and hubs."""
