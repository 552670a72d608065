"""The real cores of all roles in virtual time."""
