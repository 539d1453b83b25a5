"""The rooms joined: from a prompt and inputs to a certified small model in service."""
