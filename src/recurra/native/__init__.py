"""The compiler: one step in plain torch becomes machine code, forward and backward. It knows graphs and no cell."""
