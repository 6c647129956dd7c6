"""The paper's retrieval experiment (section 4.1)."""
