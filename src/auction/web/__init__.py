"""The market as a service: HTTP routes, rights of callers, and the client."""
