//! Readers and writers of model files and data sets for fewbit.
