"""Labels for free: GPS/image synchronisation and keyframes."""
