//! The operator table and executor of fewbit: one graph, three ways to run it.
