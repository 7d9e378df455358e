use super::*;
use crate::memory::Arena;
use fewbit_core::{Attr, Node};
use fewbit_kernels::{Ctx, Isa, Pool};

/// Small integers: their sums are exact, in whatever order.
fn operands<T: Number>(shapes: &[&[usize]]) -> Vec<Tensor> {
    let operand = |(k, shape): (usize, &&[usize])| {
        let len: usize = shape.iter().product();
        let values: Vec<T> = (0..len).map(|i| T::from_f64((i * (7 + k) % 11) as f64)).collect();
        Tensor::from_slice(shape.to_vec(), &values).unwrap()
    };
    shapes.iter().enumerate().map(operand).collect()
}

fn evaluated(equation: &str, inputs: Vec<Tensor>, threads: usize) -> Tensor {
    let (pool, arena) = (Pool::new(threads), Arena::new());
    let node = Node { op: "Einsum".into(), ..Default::default() };
    let node = node.with("equation", Attr::String(equation.into()));
    let mut ctx = EvalCtx {
        node: &node,
        opset: 21,
        kernels: &Ctx { isa: Isa::best(), pool: &pool },
        arena: &arena,
        subgraphs: None,
        inputs: inputs.into_iter().map(Some).collect(),
    };
    eval(&mut ctx).unwrap().remove(0)
}

/// The definition, one product at a time.
fn defined(equation: &str, inputs: &[Tensor]) -> Tensor {
    let shapes: Vec<&[usize]> = inputs.iter().map(Tensor::shape).collect();
    let ranks: Vec<usize> = shapes.iter().map(|s| s.len()).collect();
    let loops = Loops::new(&Equation::parse(equation, &ranks).unwrap(), &shapes).unwrap();
    let values: Vec<Vec<f32>> = inputs.iter().map(|t| t.to_f32().unwrap()).collect();
    let shape = loops.sizes[..loops.outer].to_vec();
    let mut out = vec![0.0; shape.iter().product()];
    let inner: usize = loops.sizes[loops.outer..].iter().product();
    for flat in 0..out.len() * inner {
        let (mut rest, mut at) = (flat, vec![0; inputs.len()]);
        for (axis, size) in loops.sizes.iter().enumerate().rev() {
            at.iter_mut()
                .zip(&loops.steps)
                .for_each(|(at, steps)| *at += rest % size * steps[axis]);
            rest /= size;
        }
        let factors = values.iter().zip(at).map(|(values, at)| values[at]);
        out[flat / inner] += factors.product::<f32>();
    }
    Tensor::from_slice(shape, &out).unwrap()
}

#[test]
fn results_are_those_of_the_definition() {
    let cases: [(&str, &[&[usize]]); 24] = [
        ("ij,jk->ik", &[&[13, 17], &[17, 11]]),
        ("ij,kj->ki", &[&[13, 17], &[11, 17]]),
        ("bij,bjk->bik", &[&[3, 7, 9], &[3, 9, 13]]),
        ("bhwc,hkc->bhwk", &[&[2, 5, 7, 9], &[5, 11, 9]]),
        ("bhwc,wkc->bhwk", &[&[2, 5, 7, 9], &[7, 11, 9]]),
        ("bqhd,bkhd->bhqk", &[&[2, 9, 3, 8], &[2, 7, 3, 8]]),
        ("abcd,cdef->efab", &[&[2, 3, 5, 7], &[5, 7, 3, 4]]),
        ("i,j->ij", &[&[31], &[29]]),
        ("i,j->ji", &[&[31], &[29]]),
        ("ij,ji->", &[&[31, 29], &[29, 31]]),
        ("i,i->", &[&[601], &[601]]),
        ("ij,j->i", &[&[31, 29], &[29]]),
        ("...ij,...jk->...ik", &[&[3, 1, 9, 8], &[4, 8, 11]]),
        ("...ij,jk", &[&[3, 9, 8], &[8, 11]]),
        ("bij,bjk->bik", &[&[1, 9, 8], &[4, 8, 11]]),
        ("ij,jk->ik", &[&[13, 1], &[17, 41]]),
        ("ij,jk->ik", &[&[30, 0], &[0, 41]]),
        ("ij,jk->ik", &[&[0, 17], &[17, 41]]),
        // What is no product of matrices, or too small for one.
        ("ijl,jk->ik", &[&[5, 9, 3], &[9, 13]]),
        ("ij,ij->ij", &[&[5, 9], &[5, 9]]),
        ("ii,ij->j", &[&[9, 9], &[9, 13]]),
        ("iji->ij", &[&[5, 9, 5]]),
        ("ij->", &[&[5, 9]]),
        ("ij,jk,kl->li", &[&[5, 9], &[9, 4], &[4, 6]]),
    ];
    for (equation, shapes) in cases {
        let inputs = operands::<f32>(shapes);
        let want = defined(equation, &inputs);
        for threads in [1, 3] {
            assert_eq!(evaluated(equation, inputs.clone(), threads), want, "{equation} {shapes:?}");
        }
        for inputs in [operands::<f64>(shapes), operands::<i64>(shapes)] {
            let got = evaluated(equation, inputs, 1).cast(DType::F32).unwrap();
            assert_eq!(got, want, "{equation} {shapes:?}");
        }
    }
}

#[test]
fn pairs_of_large_terms_are_matrix_products() {
    let is_product = |equation: &str, shapes: [&[usize]; 2]| {
        let equation = Equation::parse(equation, &shapes.map(<[usize]>::len)).unwrap();
        Product::of(&equation, shapes).is_some()
    };
    assert!(is_product("bhwc,hkc->bhwk", [&[2, 5, 7, 9], &[5, 11, 9]]));
    assert!(is_product("...ij,...jk->...ki", [&[3, 1, 9, 8], &[4, 8, 11]]));
    assert!(!is_product("bi,bi->b", [&[900, 9], &[900, 9]]));
    assert!(!is_product("ijl,jk->ik", [&[50, 9, 30], &[9, 13]]));
    assert!(!is_product("iij,jk->ik", [&[9, 9, 13], &[13, 13]]));
}
