//! Functions of each element: activations, arithmetic with broadcasting, batch normalization.

mod arithmetic;
mod batch_norm;
mod function;

use crate::def::{OpDef, Role};
use crate::infer::{broadcast, same_as_input};

const fn function(name: &'static str) -> OpDef {
    OpDef::new(name, same_as_input, function::eval).role(Role::Elementwise)
}

const fn arithmetic(name: &'static str) -> OpDef {
    OpDef::new(name, broadcast, arithmetic::eval).role(Role::Elementwise)
}

pub(super) const DEFS: &[OpDef] = &[
    function("Relu").role(Role::Clamp),
    function("Clip").role(Role::Clamp),
    function("LeakyRelu"),
    function("Sigmoid"),
    function("HardSigmoid"),
    function("HardSwish"),
    function("Tanh"),
    function("Exp"),
    function("Log"),
    function("Sqrt"),
    function("Reciprocal"),
    function("Erf"),
    function("Gelu"),
    function("Elu"),
    function("Selu"),
    function("Celu"),
    function("Softplus"),
    function("Softsign"),
    function("Mish"),
    function("Abs"),
    function("Neg"),
    function("Sign"),
    function("Floor"),
    function("Ceil"),
    function("Round"),
    function("Sin"),
    function("Cos"),
    arithmetic("Add"),
    arithmetic("Sub"),
    arithmetic("Mul"),
    arithmetic("Div"),
    arithmetic("Pow"),
    arithmetic("Min"),
    arithmetic("Max"),
    arithmetic("PRelu"),
    arithmetic("Sum"),
    OpDef::new("BatchNormalization", batch_norm::infer, batch_norm::eval),
];
