"""What the server counts and reports about itself."""
