"""Files: reading, checking, and saying in one sentence what is wrong with them."""
