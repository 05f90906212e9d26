"""Web page of the service: its files, and what serves them."""
