//! A fixed set of seeds, which any change has to live through.

use atrest_sim::{Figures, describe, len, run, shrink};

/// Of this many seeds from 1 on. The environment may ask for more.
const SEEDS: u64 = 120;

#[test]
fn the_histories_of_a_fixed_set_of_seeds_lose_nothing() {
    let seeds = std::env::var("ATREST_SIM_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let mut all = Figures::default();
    for seed in 1..=seeds.unwrap_or(SEEDS) {
        match run(seed, None, usize::MAX) {
            Ok(figures) => all.add(&figures),
            Err(problem) => {
                let steps: Vec<_> = shrink(seed, usize::MAX).iter().map(usize::to_string).collect();
                let steps = steps.join(",");
                panic!("{problem}\ncargo run -p atrest-sim -- --seed {seed} --steps {steps}");
            }
        }
    }
    println!("{all:?}");
    // It looks where it says.
    assert!(all.images > 50 * SEEDS && all.faults > 0 && all.crashes > SEEDS && all.requests > 0);
}

#[test]
fn a_history_follows_from_its_seed() {
    for seed in [3, 7, 13, 64] {
        assert_eq!(describe(seed).len(), len(seed) + 1);
        let figures = || format!("{:?}", run(seed, None, usize::MAX));
        assert_eq!(figures(), figures(), "seed {seed}");
        assert_eq!(run(seed, Some(&[]), usize::MAX).map(|figures| figures.histories), Ok(1));
    }
}
