"""`make observe`: statekeep with its telemetry switched on, and what one save looks like there."""
