"""The published study: its conventions, and its files read and written."""
