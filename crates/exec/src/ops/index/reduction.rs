//! What a scatter does where an update meets an element: replace it, or combine the two.

use fewbit_core::{DType, Error, Node, Result};
use half::{bf16, f16};

/// The `reduction` attribute of the scatter operators.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reduction {
    None,
    Add,
    Mul,
    Min,
    Max,
}

impl Reduction {
    pub(super) fn of(node: &Node) -> Result<Self> {
        Ok(match node.string("reduction")?.unwrap_or("none") {
            "none" => Reduction::None,
            "add" => Reduction::Add,
            "mul" => Reduction::Mul,
            "min" => Reduction::Min,
            "max" => Reduction::Max,
            other => {
                return Err(Error::bad_input(format!("unknown reduction `{other}`"))
                    .at("attribute `reduction`"));
            }
        })
    }

    /// The combination of two stored elements of a type; `None` to replace.
    pub(super) fn combine(self, dtype: DType) -> Result<Option<Combine>> {
        if self == Reduction::None {
            return Ok(None);
        }
        let found = match dtype {
            DType::F32 => with::<f32>(self),
            DType::F64 => with::<f64>(self),
            DType::F16 => with::<f16>(self),
            DType::BF16 => with::<bf16>(self),
            DType::I8 => with::<i8>(self),
            DType::U8 => with::<u8>(self),
            DType::I16 => with::<i16>(self),
            DType::U16 => with::<u16>(self),
            DType::I32 => with::<i32>(self),
            DType::U32 => with::<u32>(self),
            DType::I64 => with::<i64>(self),
            DType::U64 => with::<u64>(self),
            _ => return Err(Error::unsupported(format!("a reducing scatter of {dtype}"))),
        };
        Ok(Some(found))
    }
}

/// Combines a stored element with an update, in place.
pub(super) type Combine = fn(&mut [u8], &[u8]);

fn with<T: Number>(reduction: Reduction) -> Combine {
    match reduction {
        Reduction::Add => |slot, update| apply(slot, update, T::sum),
        Reduction::Mul => |slot, update| apply(slot, update, T::product),
        Reduction::Min => |slot, update| apply(slot, update, T::least),
        Reduction::Max | Reduction::None => |slot, update| apply(slot, update, T::greatest),
    }
}

fn apply<T: Number>(slot: &mut [u8], update: &[u8], combine: fn(T, T) -> T) {
    let size = size_of::<T>();
    for (slot, update) in slot.chunks_exact_mut(size).zip(update.chunks_exact(size)) {
        let [a, b] = [&*slot, update].map(bytemuck::pod_read_unaligned::<T>);
        slot.copy_from_slice(bytemuck::bytes_of(&combine(a, b)));
    }
}

trait Number: bytemuck::Pod {
    fn sum(self, other: Self) -> Self;
    fn product(self, other: Self) -> Self;
    fn least(self, other: Self) -> Self;
    fn greatest(self, other: Self) -> Self;
}

macro_rules! integers { ($($t:ty),*) => { $(impl Number for $t {
    fn sum(self, other: Self) -> Self { self.wrapping_add(other) }
    fn product(self, other: Self) -> Self { self.wrapping_mul(other) }
    fn least(self, other: Self) -> Self { self.min(other) }
    fn greatest(self, other: Self) -> Self { self.max(other) }
})* } }
integers!(i8, u8, i16, u16, i32, u32, i64, u64);

macro_rules! floats { ($($t:ty),*) => { $(impl Number for $t {
    fn sum(self, other: Self) -> Self { self + other }
    fn product(self, other: Self) -> Self { self * other }
    // NaN wins, as in the specification's reference.
    fn least(self, other: Self) -> Self { if other < self || other.is_nan() { other } else { self } }
    fn greatest(self, other: Self) -> Self { if other > self || other.is_nan() { other } else { self } }
})* } }
floats!(f32, f64, f16, bf16);
