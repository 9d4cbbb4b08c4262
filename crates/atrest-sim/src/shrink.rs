//! Fewer steps that show the same.

/// The steps of a failing history without which it does not fail.
pub fn shrink(seed: u64, looks: usize) -> Vec<usize> {
    let mut steps: Vec<usize> = (0..crate::len(seed)).collect();
    let fails = |steps: &[usize]| crate::run(seed, Some(steps), looks).is_err();
    if !fails(&steps) {
        return steps;
    }
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            if fails(&fewer) {
                steps = fewer;
            } else {
                at += size;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    steps
}
