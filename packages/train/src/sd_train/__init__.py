"""One trainer core and one task a training method."""
