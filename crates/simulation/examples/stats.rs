//! Tells what a range of schedules exercised, so that a quiet simulation is not taken for a thorough one.
#![allow(clippy::print_stdout)]

use quittance_simulation::situations::{self, Situations};
use quittance_simulation::world::World;

fn main() {
    let mut counts = Situations::new();
    for seed in 0..500 {
        let world = World::new(seed);
        world.live();
        for (name, count) in situations::of(&world) {
            *counts.entry(name).or_default() += count;
        }
    }
    for (name, count) in counts {
        println!("{count:>7} {name}");
    }
}
