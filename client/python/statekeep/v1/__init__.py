"""The generated code of the contract. Never edited: see tools/generate.py."""
