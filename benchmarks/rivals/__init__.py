"""What statekeep is compared with: each rival as its own users would run it."""
