"""The market as an HTTP service: routes, rights of callers, and the client."""
