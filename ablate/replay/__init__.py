"""Forward passes that start in the middle: each intervention costs only what comes after its first edit."""
