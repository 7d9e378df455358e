//! Transposes and layout changes.
