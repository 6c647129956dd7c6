"""The paper's runs, on top of the operator; needs ``pip install 'svmax-ops[runs]'``, which the operator does not."""
