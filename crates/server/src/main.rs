//! The `quittance` binary: see [`quittance_server::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    quittance_server::cli::main()
}
