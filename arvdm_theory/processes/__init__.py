"""Videos whose law is known exactly."""
