//! Prints the state diagram of `docs/states.md`.
#![allow(clippy::print_stdout)]

fn main() {
    print!("{}", quittance_domain::transition::diagram());
}
