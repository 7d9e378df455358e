//! Min-max: the extremes of everything seen.

use super::{Observer, Range, same_kind};
use fewbit_core::{QuantScheme, Result};
use fewbit_exec::kernels::Ctx;
use fewbit_exec::kernels::quantize::{Extent, extent};

/// Smallest and largest finite value.
pub struct MinMax(Extent);

impl Default for MinMax {
    fn default() -> Self {
        MinMax(Extent::EMPTY)
    }
}

impl Observer for MinMax {
    fn update(&mut self, values: &[f32], kernels: Ctx<'_>) {
        self.0 = self.0.merge(extent(kernels, values));
    }

    fn merge(&mut self, other: &dyn Observer) -> Result<()> {
        self.0 = self.0.merge(same_kind::<Self>(other)?.0);
        Ok(())
    }

    fn finish(&self, _: &QuantScheme) -> Range {
        Range::around(self.0.min, self.0.max)
    }

    fn extent(&self) -> Extent {
        self.0
    }
}
