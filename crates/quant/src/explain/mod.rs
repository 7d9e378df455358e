//! What each layer lost, and where its values lie.

mod distribution;
mod layers;

pub use distribution::{Bars, activation_bars, weight_bars};
pub use layers::{LayerLoss, layer_losses};
