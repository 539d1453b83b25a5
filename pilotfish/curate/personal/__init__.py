"""Personal data: found, masked, or replaced by pseudonyms that can be taken back."""
