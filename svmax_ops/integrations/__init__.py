"""Other libraries' plug-in points. Each module imports its library, so import only the one you use."""
